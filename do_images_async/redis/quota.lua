-- One exchange of one worker with the quota that all workers share: what has come back since its last one, and
-- what it wants now. Atomic, and on this server's clock; times are whole microseconds.
--
-- The rules are those of `do_images_async._quota.limiter` and `.gate`, which explain them. What is added here: a
-- worker holds its tokens under a lease, and free tokens are shared out evenly among the workers that wait.
--
-- KEYS    state     hash: what the gate remembers, and the counts of all workers together
--         leases    zset: worker -> when its lease ends
--         held      hash: worker -> requests of its that are not answered, its last exchange's number and answer
--         wants     hash: worker -> the JSON of what it still wants, [[reserve, number], ...]
--         dues      zset: worker -> when it was told to come back
--         passes    zset: worker -> what it has been granted; who waits with the lowest goes first
--         others    zset: requests of others, in groups ('serial:number') -> when they were seen
--         way       zset: serial of a request that may not have been counted yet -> when it was granted
--         back ...  zset for each bucket: one member for each token that is out, and when it is back
-- ARGV[1] the worker's JSON, see `store.Exchange`

local STATE, LEASES, HELD, WANTS, DUES, PASSES, OTHERS, WAY = unpack(KEYS, 1, 8)
local SECOND = 1000000
local SETTLING = 2 * SECOND
local PATIENCE = SECOND / 4 -- a worker that is late by this much is not waited for

local ask = cjson.decode(ARGV[1])
local CONSTANTS = ask.constants -- of the gate's policies; seconds, or parts
local RESET_STEP, COUNTED_WITHIN = CONSTANTS.reset_step * SECOND, CONSTANTS.counted_within * SECOND
local me = ask.worker
local moment = redis.call('TIME')
local now = moment[1] * SECOND + moment[2]

local buckets = {}
for index, limit in ipairs(ask.buckets) do
    buckets[index] = {capacity = limit[1], period = limit[2], key = KEYS[8 + index]}
end
local shortest, longest = buckets[1], buckets[#buckets] -- they come sorted by period

-- State ---------------------------------------------------------------------------------------------------

-- Nil at times: `ceiling`, `window`, `starting`, `interval`, `before` (of the others' requests), `heard_at`, `zero_serial`,
-- `disproved`, `written` and `until_...` (see `doubt_memory`).
local function new_state()
    return {serial = 0, granted = 0, held = 0, finished = 0, members = 0, newest = 0, closing_serial = 0,
            refusals = 0, closed_until = 0, probe_at = 0, paced_since = 0, next_at = 0, clean = 0, patience = 1, slowness = 0,
            least_pass = 0, since = 0, others_at = 0, cautious_until = 0, reset_at = 0, last_at = 0}
end
local state = new_state()
-- A server that starts, or is promoted, gives its data another replication id.
local info = redis.pcall('INFO', 'replication')
if type(info) == 'table' then return redis.error_reply('NOPERM INFO in a script: ' .. info.err) end
local history = string.match(info, 'master_replid:(%x+)') or ''
local labels = {epoch = ask.new_epoch, limits = cjson.encode(ask.buckets), history = history}
local saved = redis.call('HGETALL', STATE)
for index = 1, #saved, 2 do
    local field, value = saved[index], saved[index + 1]
    if labels[field] then labels[field] = value else state[field] = tonumber(value) end
end

-- Count the members of the keys that must not be lost alone: a Redis that is short of memory may evict one key
-- and leave the others.
local function count_members()
    local counts = {in_leases = redis.call('ZCARD', LEASES), in_held = redis.call('HLEN', HELD)}
    for index, bucket in ipairs(buckets) do counts['in_back' .. index] = redis.call('ZCARD', bucket.key) end
    return counts
end

local function is_whole()
    for name, count in pairs(count_members()) do
        if count ~= (state[name] or 0) then return false end
    end
    return true
end

-- Give every worker that is known a new lease, when the leases were evicted.
local function restore_leases()
    if redis.call('ZCARD', LEASES) > 0 then return end
    local all = redis.call('HGETALL', HELD)
    for index = 1, #all, 2 do redis.call('ZADD', LEASES, now + ask.lease, all[index]) end
end

-- Restore the tokens of a shorter bucket that was evicted, from those of the longest one and of others.
local function restore_bucket(index, bucket)
    if (state['in_back' .. index] or 0) == 0 or redis.call('ZCARD', bucket.key) > 0 then return end
    local later = longest.period - bucket.period
    local still = '(' .. string.format('%.0f', now + later)
    local spent = redis.call('ZRANGEBYSCORE', longest.key, still, '+inf', 'WITHSCORES')
    for number = 1, #spent, 2 do redis.call('ZADD', bucket.key, spent[number + 1] - later, spent[number]) end
    local groups = redis.call('ZRANGEBYSCORE', OTHERS, now - bucket.period, '+inf', 'WITHSCORES')
    for number = 1, #groups, 2 do
        for _ = 1, math.min(tonumber(string.match(groups[number], ':(%d+)$')), bucket.capacity) do
            state.members = state.members + 1
            local member = 'others:' .. string.format('%.0f', state.members)
            redis.call('ZADD', bucket.key, groups[number + 1] + bucket.period, member)
        end
    end
    state['in_back' .. index] = redis.call('ZCARD', bucket.key)
end

-- Restore what was evicted and other keys tell as well. Return whether nothing is missing then.
local function restore()
    if is_whole() then return true end
    restore_leases()
    for index = 1, #buckets - 1 do restore_bucket(index, buckets[index]) end
    return is_whole()
end

local function save()
    for name, count in pairs(count_members()) do state[name] = count end
    state.written = now
    local fields = {}
    for field, value in pairs(labels) do
        fields[#fields + 1] = field
        fields[#fields + 1] = value
    end
    for field, value in pairs(state) do
        fields[#fields + 1] = field
        fields[#fields + 1] = type(value) == 'number' and string.format('%.17g', value) or value
    end
    redis.call('DEL', STATE)
    redis.call('HSET', STATE, unpack(fields))
    local life = math.ceil((longest.period + ask.grace + ask.lease) / 1000) + 1000
    for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, life) end
end

-- Save what has changed; return a reply without permits.
local function answer(reply)
    reply.epoch = labels.epoch
    save()
    return cjson.encode(reply)
end

-- The same for a reply with permits, of which this worker then holds so many. It is kept, so that an exchange that
-- is sent again is not carried out again.
local function answer_exchange(reply, held)
    reply.epoch = labels.epoch
    local text = cjson.encode(reply)
    redis.call('HSET', HELD, me, string.format('%.0f %s %s', held, ask.number, text))
    save()
    return text
end

-- Tokens --------------------------------------------------------------------------------------------------

-- Send tokens back at `due` (one moment for each bucket), marked when their request was never answered.
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
    for _, key in ipairs({HELD, WANTS}) do redis.call('HDEL', key, worker) end
end

local function scores(key)
    local found, all = {}, redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for index = 1, #all, 2 do found[all[index]] = tonumber(all[index + 1]) end
    return found
end

-- Remove workers whose lease has ended, and count their requests in flight as lost. A worker that holds nothing
-- does not renew its lease. It is removed when it is late for its next visit.
local function reap()
    local gone = redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'WITHSCORES')
    if #gone == 0 then return end
    local dues, holds, all = scores(DUES), {}, redis.call('HGETALL', HELD)
    for index = 1, #all, 2 do holds[all[index]] = tonumber(string.match(all[index + 1], '^%S+')) end
    for index = 1, #gone, 2 do
        local worker, ended = gone[index], tonumber(gone[index + 1])
        local held = holds[worker] or 0
        if held > 0 or (dues[worker] or 0) + PATIENCE <= now then
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

-- The gate: the policies of `_quota/policies.py`, under the same names -------------------------------------

local function close(until_)
    state.closed_until = math.max(state.closed_until, until_)
end

-- Return how long to wait after a refusal.
local function closing_pause(report)
    if (report.retry_after or 0) > 0 then return math.min(report.retry_after, longest.period) end
    local doubled = 2 ^ math.min(state.refusals - 1, 60)
    local backoff = math.min(doubled * SECOND, shortest.period)
    local is_short = report.retry_after or (report.remaining or 0) > 0
    if is_short or not report.reset_in then return backoff end
    return math.max(math.min(report.reset_in + RESET_STEP, shortest.period * doubled, longest.period), backoff)
end

local function closing_learn(report, first)
    if not report.refused then
        if first then state.refusals = 0 end
        return
    end
    if first then
        state.closing_serial = state.serial
        state.refusals = state.refusals + 1
    end
    local pause = closing_pause(report)
    close(now + math.floor(pause + ask.jitter * math.min(SECOND, pause / 10)))
end

local function remaining_learn(report)
    if not report.remaining then return end
    if report.refused then
        state.disproved = nil
    elseif state.zero_serial and report.serial > state.zero_serial and now < state.reset_at then
        state.disproved = 1
    end
    state.zero_serial = nil
    if report.remaining == 0 and state.disproved then
        state.ceiling = nil
        return
    end
    state.ceiling = report.remaining + report.finished + 1
    if report.remaining == 0 then state.zero_serial = state.serial end
    local wait = report.reset_in and math.min(report.reset_in + RESET_STEP, longest.period) or RESET_STEP
    state.reset_at = now + wait
    state.probe_at = math.min(state.reset_at, now + shortest.period)
end

-- Return how many new requests of others there are. There are at least those that the server has counted and we
-- have not spent. There may be more, since the server may not have counted all of ours yet.
local function others_learn(report)
    for _, group in ipairs(redis.call('ZRANGEBYSCORE', OTHERS, '-inf', now - longest.period)) do
        state.since = state.since - tonumber(string.match(group, ':(%d+)$'))
        redis.call('ZREM', OTHERS, group)
    end
    -- Groups that were evicted count as requests of before, which end as the server's count shows.
    if state.since > 0 and redis.call('ZCARD', OTHERS) == 0 then
        state.before, state.since = (state.before or 0) + state.since, 0
    end
    local lower = report.counted - (longest.capacity - longest.free) - state.since
    -- Workers tell with a delay, in which requests may have finished that this answer's server had not counted.
    local late, latest = now - ask.clock + report.at + longest.period, now + longest.period
    local missed = redis.call('ZCOUNT', longest.key, '(' .. string.format('%.0f', late), latest)
    local uncertainty = state.held + math.floor(shortest.capacity / CONSTANTS.rounding_part) + missed
    local upper = state.before or report.counted - report.finished - 1
    state.before = math.max(0, math.min(upper, lower + uncertainty))
    local news = lower - state.before
    if news <= 0 then return 0 end
    state.since = state.since + news
    redis.call('ZADD', OTHERS, now, string.format('%.0f:%.0f', state.serial, news))
    return news
end

-- Return whether the server's count has shown others within a period.
local function pacing_are_others_here()
    return state.interval ~= nil and now < state.others_at + shortest.period
end

-- Pace, since others are here, or may be.
local function pacing_expect_others()
    state.others_at, state.slowness = now, 0
    if state.interval then return end
    state.interval = shortest.period / shortest.capacity
    state.clean, state.patience = state.interval, 1
    state.next_at, state.paced_since = now, now
end

-- Pace because of so many new requests of others; returns how many count in the shortest window.
local function pacing_learn_others(news, silence)
    if news == 0 then return 0 end
    pacing_expect_others()
    return math.min(math.ceil(news * shortest.period / math.max(silence, shortest.period)), shortest.capacity)
end

-- The shortest interval: faster than the full rate are bursts.
local function pacing_shortest()
    local full = shortest.period / shortest.capacity
    local no_bursts = state.slowness == 0 or now < state.others_at + shortest.period
    return no_bursts and full or full / CONSTANTS.burst_rate
end

local function log2(number)
    return math.log(number) / math.log(2)
end

local function pacing_current()
    local full = shortest.period / shortest.capacity
    local periods = math.min(math.max(now - state.paced_since, 0) / shortest.period, 60)
    if state.clean < full then
        return math.max(state.clean, state.interval / 2 ^ (CONSTANTS.doublings * periods))
    end
    local until_clean = log2(math.max(state.interval / state.clean, 1)) / CONSTANTS.returns
    if periods < until_clean then return state.interval / 2 ^ (CONSTANTS.returns * periods) end
    periods = periods - until_clean
    local until_full = log2(1 + log2(state.clean / full) * state.patience / CONSTANTS.probes)
    if periods < until_full then
        return state.clean / 2 ^ (CONSTANTS.probes * (2 ^ periods - 1) / state.patience)
    end
    periods = periods - until_full
    return full / (1 + CONSTANTS.growth * (2 ^ (periods / math.max(1, state.slowness)) - 1))
end

-- Change the clean rate after a refusal, which others may explain; rates are intervals.
local function pacing_fall_back(refused, accepted, full)
    local is_same = math.abs(full / accepted - full / state.clean) * CONSTANTS.same_part < 1
    if is_same then
        state.patience = math.min(2 * state.patience, CONSTANTS.most_patience)
    else
        state.patience = math.max(state.patience / 2, 0.5)
    end
    if refused < full then
        state.slowness = math.min(math.max(1, 2 * state.slowness), CONSTANTS.slowest_growth)
    elseif not pacing_are_others_here() then
        state.slowness = math.max(1, state.slowness)
    end
    state.clean = accepted
end

local function pacing_learn(accepted, first)
    local full = shortest.period / shortest.capacity
    local fewest = math.max(1, math.floor(shortest.capacity / CONSTANTS.slowest_part))
    local interval, pause = shortest.period / math.max(fewest, math.min(accepted, shortest.capacity)), 0
    local repeated = math.max(state.refusals - 1, 0)
    if not state.interval then
        state.clean, state.patience, state.slowness = full / CONSTANTS.burst_rate, 1, 1
    elseif first and repeated == 0 then
        pacing_fall_back(pacing_current(), interval, full)
    end
    if state.clean < full then
        -- While everything is refused, few are accepted at any rate.
        local again = repeated > 0 and state.interval
        interval = again or math.min(interval, full * CONSTANTS.first_part)
    elseif repeated > 0 and state.slowness > 0 then
        interval = math.max(interval, state.clean) / CONSTANTS.backoff ^ math.min(repeated, 60)
        interval = math.min(interval, shortest.period / fewest)
        pause = interval
    end
    if first or not state.interval or interval > state.interval then state.interval = interval end
    state.paced_since = state.clean >= full and state.closed_until or now
    state.next_at = state.closed_until + pause
end

local function pacing_grant()
    if not state.interval then return end
    local fastest = pacing_shortest()
    local interval = math.max(fastest, pacing_current())
    if interval == fastest and (state.heard_at or 0) >= state.others_at + shortest.period then
        state.interval = nil
        return
    end
    -- Requests that a closing has held back may follow a little faster.
    state.next_at = math.max(state.next_at, now - shortest.period / CONSTANTS.burst_part) + interval
end

-- Return how many requests pacing allows now; if none, also when it allows the next.
local function pacing_room()
    local interval = math.max(pacing_shortest(), pacing_current())
    local most, next_at = 0, state.next_at
    while next_at <= now do
        most, next_at = most + 1, math.max(next_at, now - shortest.period / CONSTANTS.burst_part) + interval
    end
    return most, next_at
end

local function in_flight_is_cautious()
    return pacing_are_others_here() or now < state.cautious_until
end

-- Begin with one request in flight, since nothing is known of what was spent before.
local function start_slowly()
    state.window, state.starting = 1, 1
end

-- Allow any number in flight if `needed` are more than may be while nothing is known of others.
local function end_slow_start(needed)
    if state.starting and state.window and needed > state.window then state.window, state.starting = nil, nil end
    if needed > math.floor(shortest.free / CONSTANTS.alone_part) then state.cautious_until = 0 end
end

local function in_flight_learn(report, first)
    if report.refused then
        state.window, state.starting = 1, nil
    elseif first and state.window then
        local wide = state.window >= math.min(shortest.capacity, CONSTANTS.full_width)
        state.window = not wide and state.window + 1 or nil
    end
end

local function in_flight_grant()
    state.last_at = now
    if state.window or in_flight_is_cautious() then
        redis.call('ZADD', WAY, now, string.format('%.0f', state.serial))
    end
end

-- Return how many more may be in flight, so that few are refused at once. If none, also return when the oldest
-- counts as lost, since its answer may never come.
local function in_flight_room(left)
    redis.call('ZREMRANGEBYSCORE', WAY, '-inf', now - COUNTED_WITHIN)
    local uncounted, more, part = redis.call('ZCARD', WAY), 0, CONSTANTS.alone_part
    if pacing_are_others_here() then
        part = now < (state.heard_at or 0) + COUNTED_WITHIN and CONSTANTS.shared_part or math.huge
    end
    while more < left and uncounted + more < math.max(1, math.floor((left - more) / part)) do more = more + 1 end
    local oldest = redis.call('ZRANGE', WAY, 0, 0, 'WITHSCORES')[2]
    return more, oldest and tonumber(oldest) + COUNTED_WITHIN
end

-- Take out tokens for requests of others. For the longest window, the server's own count is used.
local function spend(number)
    for index = 1, #buckets - 1 do
        local bucket = buckets[index]
        for _ = 1, number do
            state.members = state.members + 1
            redis.call('ZADD', bucket.key, now + bucket.period, 'others:' .. string.format('%.0f', state.members))
        end
        bucket.free = bucket.free - number
    end
end

local function is_the_minutes(report)
    return report.refused and report.retry_after and report.remaining == 0
end

-- Return whether a refusal may be of the longest window; then it does not say how long to wait.
local function is_the_longest(report)
    return not report.retry_after and (report.remaining or 0) == 0 and report.reset_in
end

local function gate_answered(report)
    redis.call('ZREM', WAY, string.format('%.0f', report.serial))
    local outstanding, others = shortest.capacity - shortest.free, 0
    local silence = now - (state.heard_at or now - shortest.period - 1)
    local first = report.serial > state.closing_serial
    state.heard_at = now
    if silence > shortest.period / 2 then state.others_at = now end
    if report.serial > state.newest then
        state.newest = report.serial
        if not is_the_minutes(report) then
            remaining_learn(report)
            if report.counted and silence > shortest.period then state.cautious_until = now + shortest.period end
            -- Remaining 0 may speak of the shortest window: then nobody has sent what is missing in the longest.
            if report.counted and report.remaining ~= 0 then
                local news = others_learn(report)
                others = pacing_learn_others(news, silence)
                spend(others)
            end
        end
    end
    closing_learn(report, first)
    in_flight_learn(report, first)
    if report.refused and not is_the_longest(report) then
        pacing_learn(outstanding + others - (state.serial - report.serial), first)
    end
end

-- Return how many requests the gate allows now; if none, also when it opens: nil if a response has to come first.
local function gate_room()
    local most, left = math.huge, shortest.free
    if now < state.closed_until then return 0, state.closed_until end
    if state.window then
        most = state.window - state.held
        if most <= 0 and not state.starting then return 0, nil end
        -- A caller that takes several permits before the first response must not wait for ever.
        local opens = state.last_at + COUNTED_WITHIN
        if most <= 0 and now < opens then return 0, math.min(opens, now + PATIENCE) end
        most = math.max(most, 1)
    end
    if state.ceiling then
        local remaining = state.ceiling - state.granted
        if remaining <= 0 and state.held > 0 then return 0, nil end
        if remaining <= 0 and now < state.probe_at then return 0, state.probe_at end
        left = math.min(left, remaining)
        most = math.min(most, math.max(remaining, 1))
    end
    if state.interval then
        local paced, next_at = pacing_room()
        if paced == 0 then return 0, next_at end
        most = math.min(most, paced)
    end
    if in_flight_is_cautious() then
        local more, opens = in_flight_room(math.max(left, 1))
        if more == 0 then return 0, math.min(opens, now + PATIENCE) end
        most = math.min(most, more)
    else
        redis.call('DEL', WAY)
    end
    return most, nil
end

-- Return until when requests that ended without a response hold back the next one, if none is in flight. More tokens
-- may come back until then.
local function until_counted()
    if not in_flight_is_cautious() then return now end
    local left = shortest.capacity
    if state.ceiling then left = math.min(left, state.ceiling - state.granted) end
    local more, opens = in_flight_room(math.max(left, 1))
    if more > 0 then return now end
    local others_until = pacing_are_others_here() and state.others_at + shortest.period or now
    return math.min(opens, math.max(others_until, state.cautious_until))
end

-- Return when the next request may go at the earliest, whatever the responses until then say.
local function gate_earliest()
    local due = math.max(now, state.closed_until)
    if state.interval then due = math.max(due, state.next_at) end
    if state.held > 0 then return due end
    if state.ceiling and state.granted >= state.ceiling then due = math.max(due, state.probe_at) end
    return math.max(due, until_counted())
end

-- Note that a request goes now.
local function gate_granted()
    in_flight_grant()
    pacing_grant()
end

-- The exchange --------------------------------------------------------------------------------------------

-- Note the requests that have ended since the last exchange; returns how many this worker still holds.
local function take_in(held)
    for _, report in ipairs(ask.answered) do
        for field, value in pairs(report) do
            if value == cjson.null then report[field] = nil end
        end
        state.held, held = state.held - 1, held - 1
        state.finished = state.finished + 1
        send_back(1, after(0), false)
        gate_answered(report)
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

-- Return how many permits this worker has been granted, for equal shares. A worker that begins to wait starts
-- where the others are, however long it was idle.
local function my_pass()
    local pass = tonumber(redis.call('ZSCORE', PASSES, me) or state.least_pass)
    if redis.call('HEXISTS', WANTS, me) == 1 then return pass end
    return math.max(pass, state.least_pass)
end

-- Return the other workers that wait and are not late.
local function find_rivals()
    local rivals = {}
    local wants = redis.call('HGETALL', WANTS)
    if #wants == 0 then return rivals end
    local dues, passes = scores(DUES), scores(PASSES)
    for index = 1, #wants, 2 do
        local worker = wants[index]
        if worker ~= me and (dues[worker] or 0) + PATIENCE > now then
            local pass = passes[worker] or state.least_pass
            rivals[#rivals + 1] = {name = worker, pass = pass, wants = cjson.decode(wants[index + 1])}
        end
    end
    return rivals
end

local function up_to(level, worker)
    return math.max(0, math.min(worker.want, level - worker.pass))
end

-- Return this worker's part of the supply, which lifts all workers that wait to one level, the lowest first. The
-- rest goes in the order of names. Also return how many others get the next token before this worker.
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

-- Return when the bucket has `number` more tokens than now, if nobody else takes any.
local function when_back(bucket, number)
    if number <= 0 then return now end
    local entry = redis.call('ZRANGE', bucket.key, number - 1, number - 1, 'WITHSCORES')
    return entry[2] and tonumber(entry[2]) or now + bucket.period
end

-- Return when the next permit that leaves a reserve may be granted at the earliest, if no request proves to be unsent;
-- see `Level.earliest`.
local function earliest(reserve)
    local due = gate_earliest()
    for _, bucket in ipairs(buckets) do
        due = math.max(due, math.min(when_back(bucket, reserve + 1 - bucket.free), now + bucket.period))
    end
    return due
end

-- Return when to come back for the next token. Requests of others in flight may turn out to be unsent, and the
-- workers ahead may not come. So ask again after a second, or later the more workers are ahead.
local function next_visit(reserve, ahead, held_by_me)
    local due, next_back = now + PATIENCE / 5, now
    for _, bucket in ipairs(buckets) do
        due = math.max(due, when_back(bucket, reserve + 1 + ahead - bucket.free))
        next_back = math.max(next_back, when_back(bucket, reserve + 1 - bucket.free))
    end
    if state.held > held_by_me then next_back = now end
    return math.min(due, next_back + math.floor(SECOND * (1 + ahead / 4)))
end

-- Grant permits of one reserve; return their serials, how many are missing, and when to come back.
local function grant(reserve, number, rivals, held, pass)
    local supply = gate_room()
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
        state.serial, state.granted, state.held = state.serial + 1, state.granted + 1, state.held + 1
        for _, bucket in ipairs(buckets) do bucket.free = bucket.free - 1 end
        gate_granted()
        serials[index] = state.serial
    end
    if share == number then return serials, 0, now end
    local more, opens = gate_room()
    if more == 0 then return serials, number - share, opens or now + PATIENCE end
    return serials, number - share, next_visit(reserve, ahead, held + share)
end

-- Return how many workers wait for a permit with a reserve.
local function count_reserving(missing, rivals)
    local number, waiting = 0, {missing}
    for _, rival in ipairs(rivals) do waiting[#waiting + 1] = rival.wants end
    for _, wants in ipairs(waiting) do
        local reserves = false
        for _, want in ipairs(wants) do reserves = reserves or want[1] > 0 end
        if reserves then number = number + 1 end
    end
    return number
end

local function exchange(held)
    held = take_in(held)
    if ask.at_once then
        local needed = state.held
        for _, want in ipairs(ask.wants) do needed = needed + want[2] end
        end_slow_start(needed)
    end
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
    return answer_exchange({granted = granted, wait = due and due - now, free = free, finished = state.finished,
                            serial = state.serial, workers = redis.call('ZCARD', LEASES),
                            reserving = count_reserving(missing, rivals),
                            pacing = state.interval ~= nil, opens_in = earliest(0) - now,
                            at_least = due and earliest(missing[1][1]) - now}, held)
end

-- Grant nothing for a while, in which workers report what they have spent and this memory lacks. What others have
-- spent nobody can report: pace, as if there were others. Workers have tickets of the memory before, so new serials
-- are higher than all of those.
local function begin_epoch()
    labels.epoch, labels.history = ask.new_epoch, history
    state.serial = math.max(state.serial, math.floor(now / 1000))
    close(now + SETTLING)
    pacing_expect_others()
end

-- Start with an empty memory when this one was emptied, is older than a worker's, or lacks a part.
local function forget_everything()
    redis.call('DEL', unpack(KEYS))
    state = new_state()
    for _, bucket in ipairs(buckets) do bucket.free = bucket.capacity end
    begin_epoch()
end

-- Begin an epoch when the server was started or promoted since the last exchange: what was written last may be
-- missing (a snapshot, a replica that lagged behind). Each worker that is alive joins again, with what it has told
-- since this memory was written.
local function doubt_memory()
    for field, value in pairs(state) do
        local is_past = string.sub(field, 1, 6) == 'until_' and value < now - longest.period - ask.grace
        if is_past then state[field] = nil end
    end
    state['until_' .. labels.epoch] = state.written
    local all = redis.call('HGETALL', HELD)
    for index = 1, #all, 2 do
        redis.call('HSET', HELD, all[index], string.match(all[index + 1], '^%S+') .. ' - ')
        redis.call('ZADD', LEASES, now + ask.lease, all[index])
    end
    begin_epoch()
end

-- Tell a worker of another epoch that it must report what it has spent: since when, or everything.
local function answer_lost()
    state.serial = math.max(state.serial, ask.seen)
    local last = state['until_' .. ask.epoch]
    return answer({lost = true, age = last and now - last})
end

local whole = restore()
if labels.limits ~= cjson.encode(ask.buckets) then return cjson.encode({limits = labels.limits}) end
if not whole or (#saved == 0 and ask.epoch ~= '') then
    forget_everything()
elseif labels.history ~= history then
    doubt_memory()
elseif #saved == 0 and ask.slow_start then
    start_slowly()
end
reap()
collect()
local held, number, reply = string.match(redis.call('HGET', HELD, me) or '', '^(%S+) (%S+) (.*)$')
if number == ask.number then
    redis.call('ZADD', LEASES, now + ask.lease, me)
    save()
    return reply
end
if labels.epoch ~= ask.epoch and ask.epoch ~= '' then return answer_lost() end
if state.serial < ask.seen or (number and number ~= '-' and tonumber(held) ~= ask.holds) then
    forget_everything()
    return answer_lost()
end
if not number and ask.joined then return answer({gone = true}) end
local more = ask.holds - (tonumber(held) or 0)
state.held = state.held + more
for _, bucket in ipairs(buckets) do bucket.free = bucket.free - more end
redis.call('ZADD', LEASES, now + ask.lease, me)
return exchange(ask.holds)
