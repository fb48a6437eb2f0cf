-- Leases ---------------------------------------------------------------------------

-- Returns token, worker, class, since and state of a lease. since: when it began or, over, ended.
local function read_lease(entry)
  return string.match(entry or '', '^(%d+)|([^|]*)|(%a+)|(%d+)|(%a+)$')
end

-- The same of a detector's newest lease.
local function lease_of(c, batch, detector)
  return read_lease(redis.call('HGET', c.P .. 'leases:' .. batch, detector))
end

-- End leases of one batch and worker: the worker is free of them, the entries say how they ended, so that a repeated
-- call is told from a late one. Returns the worker, if the board knows it. With stays_busy the caller says at once what
-- the worker does next.
local function end_leases(c, batch, detectors, tokens, id, class, state, stays_busy)
  local P, leases, timers, ended = c.P, {}, {}, {}
  local rest = '|' .. id .. '|' .. class .. '|' .. string.format('%.0f', c.now) .. '|' .. state
  for i, detector in ipairs(detectors) do
    local job = job_of(batch, detector)
    leases[2 * i - 1], leases[2 * i] = detector, tokens[i] .. rest
    timers[i], ended[job] = 'L' .. job, true
  end
  call_many('HSET', P .. 'leases:' .. batch, leases)
  call_many('ZREM', P .. 'timers', timers)
  local worker = worker_of(c, id)
  if not worker then
    return nil
  end
  local left = {}
  for _, job in ipairs(worker.jobs) do
    if not ended[job] then
      left[#left + 1] = job
    end
  end
  if #left == #worker.jobs then
    return worker
  end
  worker.jobs = left
  if #left > 0 then
    redis.call('HSET', P .. 'worker:' .. id, 'jobs', table.concat(left, ' '))
    return worker
  end
  if not stays_busy or worker.preempt ~= '' then
    redis.call('HSET', P .. 'worker:' .. id, 'jobs', '', 'state', 'idle', 'class', '', 'preempt', '')
  end
  if class == 'backlog' then
    for _, pool in ipairs(worker.pools) do
      redis.call('ZREM', P .. 'stealable:' .. pool, id)
    end
  end
  if worker.preempt ~= '' then
    redis.call('ZREM', P .. 'preempting:' .. worker.preempt_pool, id)
    redis.call('DEL', P .. 'orders:' .. id)
  end
  return worker
end

local function end_lease(c, batch, detector, token, id, class, state, stays_busy)
  return end_leases(c, batch, {detector}, {token}, id, class, state, stays_busy)
end

local function score_of(forced, order)
  return forced == '1' and order * 2 or order * 2 + 1
end

local function bury(c, letter, batch, detector, error_json, attempts, raw, spec)
  local key = c.P .. 'dead:' .. letter
  redis.call('HSET', key, 'error', error_json, 'attempts', attempts, 'at_ms', c.now, 'raw_uri', raw or '', 'spec', spec or '{}',
    'batch', batch, 'detector', detector or '')
  redis.call('ZADD', c.P .. 'dead', c.now, letter)
  set_timer(c, 'D' .. letter, c.now + DEAD_TTL_MS)
  local over = redis.call('ZCARD', c.P .. 'dead') - DEAD_KEPT
  local old = over > 0 and redis.call('ZRANGE', c.P .. 'dead', 0, over - 1) or {}
  for _, name in ipairs(old) do
    redis.call('DEL', c.P .. 'dead:' .. name)
    redis.call('ZREM', c.P .. 'dead', name)
    clear_timer(c, 'D' .. name)
  end
  count(c, 'dead_letters')
end

-- A job whose run came to nothing goes back to its queue, or, its attempts used up, to the dead letters.
-- how: 'free' (attempt not counted), 'counted', or 'last' (no further attempt can help).
local function give_back(c, batch, detector, how, error_json, delayed)
  local P, job = c.P, job_of(batch, detector)
  local f = redis.call('HMGET', P .. 'batch:' .. batch, 'max_attempts', 'pool', 'forced', 'order', 'grace_ms', 'backoff_ms', 'spec')
  if not f[1] then
    return 'gone'
  end
  local attempts = tonumber(redis.call('HGET', P .. 'attempts:' .. batch, detector) or '1')
  if how == 'free' then
    attempts = redis.call('HINCRBY', P .. 'attempts:' .. batch, detector, -1)
  end
  if redis.call('SISMEMBER', P .. 'unsettled:' .. batch, detector) == 0 then
    -- Settled meanwhile (excluded, or shed). A shed one stays on the backlog; an excluded one is over.
    local reason = redis.call('HGET', P .. 'reasons:' .. batch, detector) or ''
    if string.sub(reason, 1, 10) ~= 'superseded' then
      return 'settled'
    end
    f[3] = '1'
  end
  if how == 'last' or (how == 'counted' and attempts >= tonumber(f[1])) then
    local facts = cjson.decode(error_json)
    bury(c, job, batch, detector, error_json, attempts, redis.call('HGET', P .. 'raws:' .. batch, detector), f[7])
    settle(c, batch, detector, 'failed', tostring(facts.message or facts.code or 'failed'))
    emit(c, 'job_failed', batch, detector, error_json)
    note_result(c, batch)
    return 'dead'
  end
  emit(c, 'job_returned', batch, detector, error_json)
  if delayed and tonumber(f[6]) > 0 then
    set_timer(c, 'R' .. job, c.now + f[6] * attempts * attempts)
  else
    place_all(c, batch, {detector}, f[2], score_of(f[3], f[4]), 0)
    c.touched = f[2]
  end
  return 'queued'
end
