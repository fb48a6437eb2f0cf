#!lua name=rapid_v1
-- The board of one instrument. KEYS[1] is its prefix, "rapid:{INSTRUMENT}:"; the braces put all keys of an instrument
-- into one cluster slot. Every function is one transition, atomic. Keys, types and expiry: rapid/dispatch/keys.py.
--
-- Words used below:
--   c        context of one call: P prefix, now board time (ms), and values read once
--   batch    id of a batch; detector: its number as text; job: batch .. '.' .. detector on three digits
--   score    order * 2 + 1; order * 2 for jobs that are backlog whatever their exposure. Higher goes first, so that one
--            ZSET is "current before backlog, newest exposure first" (I5) and no job moves when a newer exposure comes.
--   lease    'token|worker|class|since|state'; state is held, done, failed, released or expired
--   timer    member of the timers ZSET, a letter and what it is for:
--            L job lease, R job retry, H jobs of a batch held for their preferred workers, G batch gather lease,
--            X batch leaves the backlog, B batch is forgotten, W worker gave no sign of life, M the worker mode changed,
--            D dead letter is dropped

local EVENTS_KEPT = 20000
local DEAD_KEPT = 5000
local DEAD_TTL_MS = 10 * 86400000
local RECENT_KEPT = 5000
local WAKE_TTL_MS = 60000
local NEWEST_TTL_MS = 3600000 -- so that one exposure dated in the future does not make all others backlog for good
local TIMERS_PER_TICK = 500
local JOBS_PER_CLAIM = 256
local COST_WEIGHT = 0.1
local GATHER_FAILURES = 5
local FROZEN_LOOK_MS = 1000
local LEAST_LEASE_MS = 1500 -- of real time, on a clock that runs fast: a process may be slow to get a core
local LEASES_TO_LEAVE = 3 -- a worker silent for so many leases is gone

local function context(keys)
  local t, control = redis.call('TIME'), {}
  local flat = redis.call('HGETALL', keys[1] .. 'control')
  for i = 1, #flat, 2 do
    control[flat[i]] = flat[i + 1]
  end
  local server_ms = t[1] * 1000 + math.floor(t[2] / 1000)
  local rate, now = tonumber(control.clock_rate or '') or 1, tonumber(control.clock_at or '')
  if not now then
    now = (tonumber(control.clock_offset or '') or 0) + (control.clock_rate and
      math.floor(control.clock_zero + (server_ms - control.clock_since) * rate) or server_ms)
  end
  return {P = keys[1], now = now, server_ms = server_ms, rate = rate, us = t[1] * 1000000 + t[2], control = control, mode = control.mode or 'consuming', newest = {}, pools = {}, batches = {}}
end

-- The board's clock may run faster than that of the processes (clock_rate): a wait on it as they are to wait it. While
-- it stands, they are woken when it is moved, and look up once a second.
local function real_ms(c, wait_ms)
  if c.control.clock_at and wait_ms > 0 then
    return math.max(wait_ms, FROZEN_LOOK_MS)
  end
  return c.rate == 1 and wait_ms or math.ceil(wait_ms / c.rate)
end

-- A lease on a clock that runs fast: no process can give signs of life as much faster as its night is played.
local function lease_time(c, lease_ms)
  return c.rate > 1 and math.max(tonumber(lease_ms), LEAST_LEASE_MS * c.rate) or tonumber(lease_ms)
end

-- The same as a process waits it, standing clock or not.
local function real_lease_ms(c, lease_ms)
  return math.floor(lease_time(c, lease_ms) / c.rate)
end

local function refused(code, what)
  return redis.error_reply('RAPID ' .. code .. ' ' .. what)
end

local function emit(c, kind, batch, detector, data)
  redis.call('XADD', c.P .. 'events', 'MAXLEN', '~', EVENTS_KEPT, '*', 'kind', kind, 'at_ms', c.now,
    'batch', batch or '', 'detector', detector or '', 'data', data or '{}')
end

-- The same for several detectors, as one entry: detectors with commas between, data a list. Readers take it apart.
local function emit_all(c, kind, batch, detectors, data)
  if #detectors == 1 then
    return emit(c, kind, batch, detectors[1], data[1])
  end
  emit(c, kind, batch, table.concat(detectors, ','), '[' .. table.concat(data, ',') .. ']')
end

local function count(c, what, n)
  redis.call('HINCRBY', c.P .. 'counters', what, n or 1)
end

-- Call a command with many arguments, in pieces that fit Lua's stack.
local function call_many(command, key, arguments)
  for from = 1, #arguments, 1000 do
    redis.call(command, key, unpack(arguments, from, math.min(from + 999, #arguments)))
  end
end

-- The same, where the command answers with a list.
local function ask_many(command, key, arguments)
  local answers = {}
  for from = 1, #arguments, 1000 do
    local answer = redis.call(command, key, unpack(arguments, from, math.min(from + 999, #arguments)))
    for i = 1, #answer do
      answers[from + i - 1] = answer[i]
    end
  end
  return answers
end

local function split_job(job)
  local batch, detector = string.match(job, '^(.*)%.(%d+)$')
  return batch, tostring(tonumber(detector))
end

local function job_of(batch, detector)
  return batch .. '.' .. string.format('%03d', detector)
end

-- Tokens only grow, also over a flush or a log that lost its end: one given before must not be valid again after it
-- (I3). So they are never below the time. Microseconds, as text: a Lua number would lose its last digits in JSON.
local function next_tokens(c, n)
  local last = math.max(tonumber(redis.call('GET', c.P .. 'fence') or '0'), c.us) + n
  redis.call('SET', c.P .. 'fence', string.format('%.0f', last))
  local tokens = {}
  for i = 1, n do
    tokens[i] = string.format('%.0f', last - n + i)
  end
  return tokens
end

local function wake(c, name)
  if redis.call('LLEN', c.P .. name) == 0 then
    redis.call('LPUSH', c.P .. name, '1')
    redis.call('PEXPIRE', c.P .. name, WAKE_TTL_MS)
  end
end

-- Timers -----------------------------------------------------------------------

local function set_timer(c, timer, when)
  redis.call('ZADD', c.P .. 'timers', when, timer)
  if redis.call('ZRANGE', c.P .. 'timers', 0, 0)[1] == timer then
    wake(c, 'keeper_wake') -- whoever waits for the first timer waits for this one now
  end
end

-- Timers of one kind for several jobs, at one time.
local function set_job_timers(c, letter, jobs, when)
  local entries = {}
  for i, job in ipairs(jobs) do
    entries[2 * i - 1], entries[2 * i] = when, letter .. job
  end
  call_many('ZADD', c.P .. 'timers', entries)
  local first = redis.call('ZRANGE', c.P .. 'timers', 0, 0)[1]
  if string.sub(first, 1, 1) == letter then
    for _, job in ipairs(jobs) do
      if first == letter .. job then
        wake(c, 'keeper_wake')
      end
    end
  end
end

local function clear_timer(c, timer)
  redis.call('ZREM', c.P .. 'timers', timer)
end

-- One clock for all keys of a batch: they are forgotten together, ttl after the last change.
local function touch(c, batch)
  local ttl = redis.call('HGET', c.P .. 'batch:' .. batch, 'ttl_ms')
  if ttl then
    redis.call('ZADD', c.P .. 'timers', c.now + ttl, 'B' .. batch)
  end
end

-- Jobs queued now leave the backlog so long from now.
local function age_from_now(c, batch)
  local age_ms = redis.call('HGET', c.P .. 'batch:' .. batch, 'backlog_age_ms')
  redis.call('ZADD', c.P .. 'timers', c.now + age_ms, 'X' .. batch)
end

-- Gather timers ------------------------------------------------------------------

local function gather_at(c, batch, when)
  redis.call('ZADD', c.P .. 'gathers', when, batch)
  if redis.call('ZRANGE', c.P .. 'gathers', 0, 0)[1] == batch then
    wake(c, 'gather_wake')
  end
end

local function is_complete(c, batch, final)
  return final == '1' and redis.call('SCARD', c.P .. 'unsettled:' .. batch) == 0
end

-- Whether detectors that were left for later may still give results: they come one by one, and each would redraw the
-- picture.
local function awaits_more(c, batch)
  for _, reason in ipairs(redis.call('HVALS', c.P .. 'reasons:' .. batch)) do
    if string.sub(reason, 1, 10) == 'superseded' then
      return true
    end
  end
  return false
end

-- Set the timer a batch needs now, after any change of its sets (I4).
local function schedule_gather(c, batch)
  local f = redis.call('HMGET', c.P .. 'batch:' .. batch, 'gathering', 'version', 'gathered_n', 'first_ms', 'gather_ms',
    'regather_ms', 'deadline_ms', 'final', 'regather_at')
  if not f[2] or f[1] == '1' then
    return -- unknown; or its running gather schedules again when it ends
  end
  local complete = is_complete(c, batch, f[8])
  if f[2] == '0' then
    if complete then
      gather_at(c, batch, c.now)
    elseif f[4] then
      gather_at(c, batch, math.min(f[4] + f[5], f[7] + 0))
    else
      gather_at(c, batch, f[7])
    end
  elseif redis.call('SCARD', c.P .. 'finished:' .. batch) ~= tonumber(f[3]) then
    -- The finished set only grows: its size tells whether it changed since the last summary.
    if complete and not awaits_more(c, batch) then
      gather_at(c, batch, c.now)
    else
      local due = tonumber(f[9] or '') or (f[4] or c.now) + f[6]
      if not f[9] then
        due = due > c.now and due or c.now + f[6]
        redis.call('HSET', c.P .. 'batch:' .. batch, 'regather_at', due) -- it stays due if its gatherer dies
      end
      gather_at(c, batch, due)
    end
  else
    redis.call('ZREM', c.P .. 'gathers', batch)
  end
end

-- After a result of one detector. Sets a timer only where the result changes one: most change none.
local function note_result(c, batch)
  local key = c.P .. 'batch:' .. batch
  local f = redis.call('HMGET', key, 'first_ms', 'version', 'final')
  if not f[1] then
    redis.call('HSET', key, 'first_ms', c.now)
    touch(c, batch)
  end
  if not f[1] or f[2] ~= '0' or is_complete(c, batch, f[3]) then
    schedule_gather(c, batch)
  end
end

-- End a detector otherwise than finished.
local function settle(c, batch, detector, state, reason)
  redis.call('HSET', c.P .. 'reasons:' .. batch, detector, state .. '|' .. (reason or ''))
  redis.call('SREM', c.P .. 'waiting:' .. batch, detector)
  redis.call('SREM', c.P .. 'unsettled:' .. batch, detector)
end
