#!lua name=rapid_v1
-- The board of one instrument. KEYS[1] is its prefix, "rapid:{INSTRUMENT}:"; the braces put all keys of an
-- instrument into one slot. Time is the server's, moved by the clock offset that replays set.
--
-- Data model (P = prefix, B = batch id, J = job id = B.DDD, W = worker id)
--   P..batch:B        HASH  spec, info, order, pool, class, timers and gather state of a batch
--   P..expected:B     SET   detectors the batch wants
--   P..waiting:B      SET   expected, raw not yet arrived
--   P..unsettled:B    SET   expected, not yet settled; empty means complete (I4: a set, never a counter)
--   P..finished:B     SET   detectors with a result
--   P..reasons:B      HASH  detector -> state|reason, for all that are settled otherwise
--   P..raws:B         HASH  detector -> URI
--   P..metrics:B      HASH  detector -> short metrics (JSON)
--   P..attempts:B     HASH  detector -> attempts counted
--   P..queue:POOL:CLASS  ZSET  job ids by order: newest exposure highest (CLASS current or backlog)
--   P..delayed        ZSET  job ids by the time they may be queued again
--   P..lease:J        HASH  token, worker, class, claimed of a running job
--   P..leases         ZSET  job ids by lease expiry
--   P..gathers        ZSET  batch ids by the time their gather is due
--   P..gather_leases  ZSET  batch ids by lease expiry of their running gather
--   P..wake:W         LIST  what a waiting worker is woken with: a leased job, or an order
--   P..gather_wake    LIST  wakes a waiting gatherer
--   P..parked:POOL    ZSET  waiting workers by the time they began to wait
--   P..worker:W       HASH  a worker as it introduced itself, and what it does
--   P..workers        ZSET  worker ids by last sign of life
--   P..stealable      ZSET  workers running a backlog job, by claim time (pre-emption)
--   P..affinity       HASH  POOL:detector -> worker that last ran it
--   P..dead           ZSET  dead letters (job ids) by time;  P..dead:J HASH the letter
--   P..leader         HASH  id, token, until of the leading head;  P..leader_wake LIST
--   P..recent         ZSET  batch ids by post time
--   P..counters       HASH  totals since the board began
--   P..fence          STRING  the last fencing token;  P..mode, P..clock_offset STRING;  P..pools SET
--   P..events         STREAM  what happened, trimmed

local BATCH_KEYS = {'batch:', 'expected:', 'waiting:', 'unsettled:', 'finished:', 'reasons:', 'raws:', 'metrics:', 'attempts:'}
local EVENTS_KEPT = 50000
local DEAD_KEPT = 5000
local RECENT_KEPT = 2000
local BACKOFF_MS = 1000

local function now_ms(P)
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(redis.call('GET', P .. 'clock_offset') or '0')
end

local function refused(code, message)
  return redis.error_reply('RAPID ' .. code .. ' ' .. message)
end

local function text(ms)
  return string.format('%.0f', ms)
end

local function emit(P, now, kind, batch, detector, data)
  redis.call('XADD', P .. 'events', 'MAXLEN', '~', EVENTS_KEPT, '*', 'kind', kind, 'at_ms', text(now),
    'batch', batch or '', 'detector', detector or '', 'data', data or '{}')
end

local function count(P, what, n)
  redis.call('HINCRBY', P .. 'counters', what, n or 1)
end

local function split_job(job)
  local batch, detector = string.match(job, '^(.*)%.(%d+)$')
  return batch, tostring(tonumber(detector))
end

local function job_of(batch, detector)
  return batch .. '.' .. string.format('%03d', tonumber(detector))
end

local function fields(P, batch, ...)
  return redis.call('HMGET', P .. 'batch:' .. batch, ...)
end

local function touch(P, batch, ttl_ms)
  for _, name in ipairs(BATCH_KEYS) do
    redis.call('PEXPIRE', P .. name .. batch, ttl_ms)
  end
end

-- Gather timers ------------------------------------------------------------

local function wake_gatherer(P)
  if redis.call('LLEN', P .. 'gather_wake') == 0 then
    redis.call('LPUSH', P .. 'gather_wake', '1')
    redis.call('PEXPIRE', P .. 'gather_wake', 60000)
  end
end

local function gather_at(P, batch, when)
  redis.call('ZADD', P .. 'gathers', text(when), batch)
  local first = redis.call('ZRANGE', P .. 'gathers', 0, 0)
  if first[1] == batch then
    wake_gatherer(P)
  end
end

-- Set the timer a batch needs now. Called after every change of its sets.
local function schedule_gather(P, now, batch)
  local f = fields(P, batch, 'gathering', 'version', 'changed', 'first_ms', 'gather_ms', 'regather_ms', 'deadline_ms')
  if f[1] == '1' then
    return -- the running gather schedules again when it ends
  end
  local complete = redis.call('SCARD', P .. 'unsettled:' .. batch) == 0
  if tonumber(f[2]) == 0 then
    if complete then
      gather_at(P, batch, now)
    elseif f[4] then
      gather_at(P, batch, math.min(tonumber(f[4]) + tonumber(f[5]), tonumber(f[7])))
    else
      gather_at(P, batch, tonumber(f[7]))
    end
  elseif f[3] == '1' then
    if complete then
      gather_at(P, batch, now)
    else
      local due = tonumber(f[4] or now) + tonumber(f[6])
      if due <= now then
        due = now + tonumber(f[6])
      end
      if not redis.call('ZSCORE', P .. 'gathers', batch) then
        gather_at(P, batch, due)
      end
    end
  end
end

local function first_result(P, now, batch)
  redis.call('HSETNX', P .. 'batch:' .. batch, 'first_ms', text(now))
  redis.call('HSET', P .. 'batch:' .. batch, 'last_ms', text(now))
end

-- End a detector otherwise than finished: failed, superseded, quarantined or excluded.
local function settle(P, batch, detector, state, reason)
  redis.call('HSET', P .. 'reasons:' .. batch, detector, state .. '|' .. (reason or ''))
  redis.call('SREM', P .. 'waiting:' .. batch, detector)
  redis.call('SREM', P .. 'unsettled:' .. batch, detector)
end

-- Queues -------------------------------------------------------------------

local function queue_key(P, pool, class)
  return P .. 'queue:' .. pool .. ':' .. class
end

local function enqueue(P, batch, detector, pool, class, order)
  redis.call('ZADD', queue_key(P, pool, class), order, job_of(batch, detector))
end

-- Forget a job wherever it may be queued.
local function dequeue(P, job, pool)
  redis.call('ZREM', queue_key(P, pool, 'current'), job)
  redis.call('ZREM', queue_key(P, pool, 'backlog'), job)
  redis.call('ZREM', P .. 'delayed', job)
end
