-- One exchange of one worker with the quota that all workers share: what has come back since its last one, and
-- what it wants now. Atomic, and on this server's clock; times are whole microseconds.
--
-- The rules are those of `do_images_async.ratelimit` and `.gate`, which explain them. What is added here: a
-- worker holds its tokens under a lease, and free tokens are shared out evenly among the workers that wait.
--
-- KEYS    state     hash: what the gate remembers, and the counts of all workers together
--         leases    zset: worker -> when its lease ends
--         held      hash: worker -> requests of its that are not answered
--         wants     hash: worker -> the JSON of what it still wants, [[reserve, number], ...]
--         dues      zset: worker -> when it was told to come back
--         passes    zset: worker -> what it has been granted; who waits with the lowest goes first
--         replies   hash: worker -> its last exchange's number and answer
--         back ...  zset for each bucket: one member for each token under way, and when it is back
-- ARGV[1] the worker's JSON, see `store.Exchange`

local STATE, LEASES, HELD, WANTS, DUES, PASSES, REPLIES = unpack(KEYS, 1, 7)
local SECOND = 1000000
local PATIENCE = SECOND / 4 -- a worker that is late by this much is not waited for
local GROWTH = 0.03         -- of the rate, while it is paced

local ask = cjson.decode(ARGV[1])
local me = ask.worker
local moment = redis.call('TIME')
local now = moment[1] * SECOND + moment[2]

local buckets = {}
for index, limit in ipairs(ask.buckets) do
    buckets[index] = {capacity = limit[1], period = limit[2], key = KEYS[7 + index]}
end
local shortest, longest = buckets[1], buckets[#buckets] -- they come sorted by period

-- State ---------------------------------------------------------------------------------------------------

local state = {granted = 0, held = 0, finished = 0, members = 0, newest = 0, closing_serial = 0, refusals = 0,
               foreign = 0, closed_until = 0, probe_at = 0, paced_since = 0, next_at = 0, least_pass = 0}
local labels = {epoch = ask.new_epoch, limits = cjson.encode(ask.buckets)}
local saved = redis.call('HGETALL', STATE)
for index = 1, #saved, 2 do
    local field, value = saved[index], saved[index + 1]
    if labels[field] then labels[field] = value else state[field] = tonumber(value) end
end

local function save()
    redis.call('DEL', STATE)
    redis.call('HSET', STATE, 'epoch', labels.epoch, 'limits', labels.limits)
    for field, value in pairs(state) do redis.call('HSET', STATE, field, value) end
    local life = math.ceil((longest.period + ask.grace + ask.lease) / 1000) + 1000
    for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, life) end
end

local function answer(reply)
    reply.epoch = labels.epoch
    local text = cjson.encode(reply)
    if reply.granted then redis.call('HSET', REPLIES, me, ask.number .. ' ' .. text) end
    save()
    return text
end

-- Tokens --------------------------------------------------------------------------------------------------

-- Tokens that come back at `due` (one moment for each bucket), marked when their request was never answered.
local function send_back(number, due, lost)
    for _ = 1, number do
        state.members = state.members + 1
        local member = (lost and 'lost:' or 'done:') .. string.format('%.0f', state.members)
        for index, bucket in ipairs(buckets) do
            if due[index] > now then redis.call('ZADD', bucket.key, due[index], member) end
        end
        if lost and due[1] <= now then state.finished = state.finished + 1 end
    end
end

local function after(delay)
    local due = {}
    for index, bucket in ipairs(buckets) do due[index] = now + delay + bucket.period end
    return due
end

local function forget(worker)
    for _, key in ipairs({LEASES, DUES, PASSES}) do redis.call('ZREM', key, worker) end
    for _, key in ipairs({HELD, WANTS, REPLIES}) do redis.call('HDEL', key, worker) end
end

local function is_awaited(worker)
    return tonumber(redis.call('ZSCORE', DUES, worker) or 0) + PATIENCE > now
end

-- Whoever has not renewed its lease is gone, and what it held may have been sent. Who holds nothing has nothing
-- to renew, and may be late for its due only.
local function reap()
    local gone = redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'WITHSCORES')
    for index = 1, #gone, 2 do
        local worker, ended = gone[index], tonumber(gone[index + 1])
        local held = tonumber(redis.call('HGET', HELD, worker) or 0)
        if held > 0 or not is_awaited(worker) then
            send_back(held, after(ask.grace + ended - now), true)
            state.held = state.held - held
            forget(worker)
        end
    end
end

local function collect()
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', shortest.key, '-inf', now)) do
        if string.sub(member, 1, 5) == 'lost:' then state.finished = state.finished + 1 end
    end
    for _, bucket in ipairs(buckets) do
        redis.call('ZREMRANGEBYSCORE', bucket.key, '-inf', now)
        bucket.free = bucket.capacity - state.held - redis.call('ZCARD', bucket.key)
    end
end

-- The gate ------------------------------------------------------------------------------------------------

local function close(until_)
    state.closed_until = math.max(state.closed_until, until_)
end

local function current_interval()
    local periods = math.min((now - state.paced_since) / shortest.period, 60)
    return state.interval / (1 + GROWTH * (2 ^ periods - 1))
end

local function look_at_the_hour(report)
    if report.remaining then
        state.ceiling = report.remaining + report.finished + 1
        local wait = report.reset_in and math.min(report.reset_in + SECOND, ask.longest_pause) or SECOND
        state.probe_at = now + wait
    end
    if report.counted then
        local foreign = math.max(0, report.counted - (longest.capacity - longest.free))
        if foreign > state.foreign and not state.interval then
            state.interval = shortest.period / shortest.capacity
            state.paced_since, state.next_at = now, now
        end
        state.foreign = foreign
    end
end

local function refuse(report)
    local first = report.serial > state.closing_serial
    if first then
        state.closing_serial = state.granted
        state.refusals = state.refusals + 1
    end
    local pause = report.retry_after
    if not pause then
        local reset = report.reset_in and report.reset_in + SECOND or 0
        pause = math.max(reset, math.min(2 ^ (state.refusals - 1), 60) * SECOND)
    end
    close(now + math.min(pause, ask.longest_pause))
    state.window = 1
    if not report.retry_after then return end
    local accepted = shortest.capacity - shortest.free - (state.granted - report.serial)
    local least = math.max(1, math.floor(shortest.capacity / 4))
    local interval = shortest.period / math.max(least, math.min(accepted, shortest.capacity))
    if first or not state.interval or interval > state.interval then state.interval = interval end
    state.paced_since, state.next_at = now, state.closed_until
end

local function heed(report)
    if report.serial > state.newest then
        state.newest = report.serial
        look_at_the_hour(report)
    end
    if report.refused then
        refuse(report)
    elseif report.serial > state.closing_serial then
        state.refusals = 0
        if state.window then
            state.window = state.window < shortest.capacity and state.window + 1 or nil
        end
    end
end

-- How many requests the gate lets go now; when none, also when it opens: nil if a response has to come first.
local function room()
    local most = math.huge
    if now < state.closed_until then return 0, state.closed_until end
    if state.window then most = state.window - state.held end
    if state.ceiling then
        local left = state.ceiling - state.granted
        if left <= 0 and state.held > 0 then return 0, nil end
        if left <= 0 and now < state.probe_at then return 0, state.probe_at end
        most = math.min(most, math.max(left, 1))
    end
    if state.interval then
        if now < state.next_at then return 0, state.next_at end
        most = math.min(most, 1)
    end
    return math.max(most, 0), nil
end

local function keep_pace()
    if not state.interval then return end
    local full = shortest.period / shortest.capacity
    local interval = math.max(full, current_interval())
    if interval == full and now >= state.paced_since + shortest.period then
        state.interval = nil
        return
    end
    state.next_at = math.max(state.next_at, now - shortest.period / 30) + interval
end

-- The exchange --------------------------------------------------------------------------------------------

-- Note what has come back since the last exchange.
local function take_in()
    local held = tonumber(redis.call('HGET', HELD, me) or 0)
    for _, report in ipairs(ask.answered) do
        for field, value in pairs(report) do
            if value == cjson.null then report[field] = nil end
        end
        state.held, held = state.held - 1, held - 1
        state.finished = state.finished + 1
        send_back(1, after(0), false)
        heed(report)
    end
    send_back(ask.lost, after(ask.grace), true)
    state.held, held = state.held - ask.lost - ask.unsent, held - ask.lost - ask.unsent
    state.granted = state.granted - ask.unsent
    for _, bucket in ipairs(buckets) do bucket.free = bucket.free + ask.unsent end
    for _, age in ipairs(ask.elsewhere) do
        local due = {}
        for index, bucket in ipairs(buckets) do
            due[index] = now - age + bucket.period
            if due[index] > now then bucket.free = bucket.free - 1 end
        end
        send_back(1, due, false)
    end
    if ask.settling > 0 then close(now + ask.settling) end
    return held
end

-- What a worker has been granted, for the sake of equal shares. Who begins to wait starts where the others are:
-- to have been idle is no merit.
local function my_pass()
    local pass = tonumber(redis.call('ZSCORE', PASSES, me) or 0)
    if redis.call('HEXISTS', WANTS, me) == 1 then return pass end
    return math.max(pass, state.least_pass)
end

-- The other workers that wait and are not late.
local function find_rivals()
    local rivals = {}
    local wants = redis.call('HGETALL', WANTS)
    for index = 1, #wants, 2 do
        local worker = wants[index]
        if worker ~= me and is_awaited(worker) then
            local pass = tonumber(redis.call('ZSCORE', PASSES, worker) or 0)
            rivals[#rivals + 1] = {name = worker, pass = pass, wants = cjson.decode(wants[index + 1])}
        end
    end
    return rivals
end

local function up_to(level, worker)
    return math.max(0, math.min(worker.want, level - worker.pass))
end

-- My part of the supply when it lifts all who wait to one level, the lowest first; one that is left over goes
-- by name. Also how many others get the next one before me.
local function fair_share(supply, mine, others)
    local function total(level)
        local sum = up_to(level, mine)
        for _, other in ipairs(others) do sum = sum + up_to(level, other) end
        return sum
    end
    local low, high = mine.pass, mine.pass + mine.want
    for _, other in ipairs(others) do
        low, high = math.min(low, other.pass), math.max(high, other.pass + other.want)
    end
    while low < high do
        local middle = math.ceil((low + high) / 2)
        if total(middle) <= supply then low = middle else high = middle - 1 end
    end
    local ahead = 0
    for _, other in ipairs(others) do
        local next_one = up_to(low + 1, other) > up_to(low, other)
        if next_one and (other.name < me or up_to(low + 1, mine) == up_to(low, mine)) then ahead = ahead + 1 end
    end
    local one_more = ahead < supply - total(low) and 1 or 0
    return math.min(up_to(low + one_more, mine), mine.want), ahead
end

-- When the bucket has `number` more tokens than now, if nobody else takes any.
local function when_back(bucket, number)
    if number <= 0 then return now end
    local entry = redis.call('ZRANGE', bucket.key, number - 1, number - 1, 'WITHSCORES')
    return entry[2] and tonumber(entry[2]) or now + bucket.period
end

-- When to come back for the next token. What is under way elsewhere may turn out to be unsent at any time, and
-- who is ahead may not come: look again in a second then.
local function next_visit(reserve, ahead, held_by_me)
    local due, next_back = now + PATIENCE / 5, now
    for _, bucket in ipairs(buckets) do
        due = math.max(due, when_back(bucket, reserve + 1 + ahead - bucket.free))
        next_back = math.max(next_back, when_back(bucket, reserve + 1 - bucket.free))
    end
    if state.held > held_by_me then next_back = now end
    return math.min(due, next_back + SECOND)
end

-- Grant what can be granted of one kind; returns the serials, how many are missing, and when to come back.
local function grant(reserve, number, rivals, held, pass)
    local supply = room()
    for _, bucket in ipairs(buckets) do supply = math.min(supply, bucket.free - reserve) end
    local others = {}
    for _, rival in ipairs(rivals) do
        for _, want in ipairs(rival.wants) do
            if want[1] < reserve then supply = supply - want[2] end
            if want[1] == reserve then
                others[#others + 1] = {name = rival.name, pass = rival.pass, want = want[2]}
            end
        end
    end
    local share, ahead = fair_share(math.max(supply, 0), {pass = pass, want = number}, others)
    local serials = {}
    for index = 1, share do
        state.granted, state.held = state.granted + 1, state.held + 1
        for _, bucket in ipairs(buckets) do bucket.free = bucket.free - 1 end
        keep_pace()
        serials[index] = state.granted
    end
    if share == number then return serials, 0, now end
    local more, opens = room()
    if more == 0 then return serials, number - share, opens or now + PATIENCE end
    return serials, number - share, next_visit(reserve, ahead, held + share)
end

local function exchange()
    local held = take_in()
    local rivals, pass = find_rivals(), my_pass()
    local granted, missing, due = {}, {}, nil
    for index, want in ipairs(ask.wants) do
        local serials, short, back = grant(want[1], want[2], rivals, held, pass)
        granted[index] = {want[1], serials}
        if #serials > 0 then state.least_pass = math.max(state.least_pass, pass) end
        held, pass = held + #serials, pass + #serials
        if short > 0 then
            missing[#missing + 1] = {want[1], short}
            due = math.min(due or back, back)
        end
    end
    redis.call('HSET', HELD, me, held)
    redis.call('ZADD', PASSES, pass, me)
    if due then
        redis.call('HSET', WANTS, me, cjson.encode(missing))
        redis.call('ZADD', DUES, due, me)
    else
        redis.call('HDEL', WANTS, me)
        redis.call('ZREM', DUES, me)
    end
    local free = {}
    for index, bucket in ipairs(buckets) do free[index] = bucket.free end
    return {granted = granted, wait = due and due - now, free = free, finished = state.finished,
            workers = redis.call('ZCARD', LEASES), pacing = state.interval ~= nil}
end

if labels.limits ~= cjson.encode(ask.buckets) then return cjson.encode({limits = labels.limits}) end
local done = redis.call('HGET', REPLIES, me)
local number, reply = string.match(done or '', '^(%d+) (.*)$')
if number == ask.number then return reply end
reap()
collect()
if labels.epoch ~= ask.epoch and ask.epoch ~= '' then return answer({lost = true}) end
local known = redis.call('ZSCORE', LEASES, me)
if not known and ask.joined then return answer({gone = true}) end
if not known then
    redis.call('HSET', HELD, me, ask.holds)
    state.held = state.held + ask.holds
    for _, bucket in ipairs(buckets) do bucket.free = bucket.free - ask.holds end
end
redis.call('ZADD', LEASES, now + ask.lease, me)
return answer(exchange())
