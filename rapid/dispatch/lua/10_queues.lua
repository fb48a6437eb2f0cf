-- Queues and placement -------------------------------------------------------------

local function newest_of(c, pool)
  if not c.newest[pool] then
    c.newest[pool] = tonumber(redis.call('GET', c.P .. 'newest:' .. pool) or '0')
  end
  return c.newest[pool]
end

local function is_current(c, pool, score)
  return score % 2 == 1 and (score - 1) / 2 >= newest_of(c, pool)
end

-- ZRANGE bounds of the current jobs of a queue.
local function first_current(c, pool)
  return newest_of(c, pool) * 2 + 1
end

local function unqueue(c, job, pool, detector)
  local P = c.P
  local removed = redis.call('ZREM', P .. 'queue:' .. pool, job)
  if removed == 0 then
    removed = redis.call('ZREM', P .. 'held:' .. pool, job)
    if removed == 1 then
      clear_timer(c, 'H' .. job)
    else
      removed = redis.call('ZREM', P .. 'pinned:' .. pool .. ':' .. detector, job)
    end
  end
  if removed == 1 then
    local owner = redis.call('HGET', P .. 'owners:' .. pool, job)
    if owner then
      redis.call('HDEL', P .. 'owners:' .. pool, job)
      redis.call('ZREM', P .. 'own:' .. pool .. ':' .. owner, job)
    end
  end
  return removed
end

local function worker_of(c, id)
  local f = redis.call('HMGET', c.P .. 'worker:' .. id, 'pools', 'pinned', 'lease_ms', 'job')
  if not f[1] then
    return nil
  end
  local worker = {id = id, pools = {}, lease_ms = tonumber(f[3]), job = f[4]}
  for pool in string.gmatch(f[1], '[^,]+') do
    worker.pools[#worker.pools + 1] = pool
  end
  if f[2] and f[2] ~= '' then
    worker.pinned = {}
    for detector in string.gmatch(f[2], '[^,]+') do
      worker.pinned[#worker.pinned + 1] = detector
    end
  end
  return worker
end

local function unpark(c, worker)
  for _, pool in ipairs(worker.pools) do
    redis.call('ZREM', c.P .. 'parked:' .. pool, worker.id)
  end
end

local function message_of(batch, detector, raw, class, attempt, token, lease_ms, posted_ms, claimed_ms, spec)
  return cjson.encode({batch = batch, detector = tonumber(detector), raw_uri = raw, priority = class, attempt = attempt,
    token = token, lease_ms = lease_ms, posted_ms = tonumber(posted_ms), claimed_ms = claimed_ms}) .. '\n' .. spec
end

-- Lease a job to a worker. Returns the message it gets: facts of the job, newline, spec of the batch.
local function lease(c, job, worker, pool, score)
  local P = c.P
  local batch, detector = split_job(job)
  local f = redis.call('HMGET', P .. 'batch:' .. batch, 'spec', 'posted_ms')
  local raw = redis.call('HGET', P .. 'raws:' .. batch, detector)
  local token = next_token(c)
  local attempt = redis.call('HINCRBY', P .. 'attempts:' .. batch, detector, 1)
  local class = is_current(c, pool, score) and 'current' or 'backlog'
  redis.call('HSET', P .. 'leases:' .. batch, detector, token .. '|' .. worker.id .. '|' .. class .. '|' .. c.now .. '|held')
  set_timer(c, 'L' .. job, c.now + worker.lease_ms)
  redis.call('HSET', P .. 'worker:' .. worker.id, 'job', job, 'state', 'busy', 'class', class)
  redis.call('HSET', P .. 'affinity:' .. pool, detector, worker.id)
  if class == 'backlog' and not worker.pinned then
    for _, name in ipairs(worker.pools) do
      redis.call('ZADD', P .. 'stealable:' .. name, c.now, worker.id)
    end
  end
  count(c, 'started')
  emit(c, 'job_started', batch, detector,
    cjson.encode({worker = worker.id, attempt = attempt, priority = class, queue_ms = c.now - f[2]}))
  return message_of(batch, detector, raw, class, attempt, token, worker.lease_ms, f[2], c.now, f[1])
end

local function hand_over(c, id, message)
  local key = c.P .. 'wake:' .. id
  redis.call('RPUSH', key, message)
  redis.call('PEXPIRE', key, WAKE_TTL_MS)
end

-- Lease a job to a worker that waits for one.
local function give(c, job, worker, pool, score)
  unpark(c, worker)
  hand_over(c, worker.id, lease(c, job, worker, pool, score))
end

-- Ask a worker to give up its backlog job. Returns whether it was asked.
local function order_preempt(c, id, pool)
  local P = c.P
  local f = redis.call('HMGET', P .. 'worker:' .. id, 'job', 'class', 'preempt', 'pools')
  if not f[1] or f[1] == '' or f[2] ~= 'backlog' or (f[3] and f[3] ~= '') then
    return false
  end
  local batch, detector = split_job(f[1])
  local token = string.match(redis.call('HGET', P .. 'leases:' .. batch, detector) or '', '^(%d+)|')
  if not token then
    return false
  end
  redis.call('RPUSH', P .. 'orders:' .. id, cjson.encode({order = 'preempt', job_id = f[1], token = token}))
  redis.call('PEXPIRE', P .. 'orders:' .. id, WAKE_TTL_MS)
  redis.call('HSET', P .. 'worker:' .. id, 'preempt', token, 'preempt_pool', pool)
  redis.call('ZADD', P .. 'preempting:' .. pool, c.now, id)
  for name in string.gmatch(f[4], '[^,]+') do
    redis.call('ZREM', P .. 'stealable:' .. name, id)
  end
  count(c, 'preemptions')
  return true
end

-- Workers a detector is pinned to, of one pool.
local function pinned_to(c, pool, detector)
  local pins = c.pools[pool]
  if not pins then
    pins = {}
    local flat = redis.call('HGETALL', c.P .. 'pins:' .. pool)
    for i = 1, #flat, 2 do
      pins[flat[i]] = flat[i + 1]
    end
    c.pools[pool] = pins
  end
  return pins[detector]
end

-- Put a job where its worker finds it: to a waiting worker at once, else into a queue. Returns whether it started.
local function place(c, job, detector, pool, score, grace_ms)
  local P = c.P
  local current = is_current(c, pool, score)
  local may_start = current or mode_of(c) ~= 'waiting'
  local urgent = current and mode_of(c) == 'preempting'
  local pins = pinned_to(c, pool, detector)
  if pins then
    for id in string.gmatch(pins, '[^,]+') do
      if may_start and redis.call('HGET', P .. 'worker:' .. id, 'state') == 'parked' then
        give(c, job, worker_of(c, id), pool, score)
        return true
      end
    end
    redis.call('ZADD', P .. 'pinned:' .. pool .. ':' .. detector, score, job)
    if urgent then
      for id in string.gmatch(pins, '[^,]+') do
        if order_preempt(c, id, pool) then
          break
        end
      end
    end
    return false
  end
  local owner = redis.call('HGET', P .. 'affinity:' .. pool, detector)
  if owner and redis.call('ZSCORE', P .. 'workers', owner) then
    if may_start and redis.call('ZSCORE', P .. 'parked:' .. pool, owner) then
      give(c, job, worker_of(c, owner), pool, score)
      return true
    end
    redis.call('ZADD', P .. 'own:' .. pool .. ':' .. owner, score, job)
    redis.call('HSET', P .. 'owners:' .. pool, job, owner)
    if grace_ms > 0 then
      redis.call('ZADD', P .. 'held:' .. pool, score, job)
      set_timer(c, 'H' .. job, c.now + grace_ms)
      if urgent then
        order_preempt(c, owner, pool)
      end
      return false
    end
  end
  redis.call('ZADD', P .. 'queue:' .. pool, score, job)
  return false
end

-- Give what is queued for anyone to workers that wait; in mode preempting, ask busy ones. Returns how many started.
local function spread(c, pool)
  local P, started = c.P, 0
  local queue, parked = P .. 'queue:' .. pool, P .. 'parked:' .. pool
  while true do
    local top = redis.call('ZREVRANGE', queue, 0, 0, 'WITHSCORES')
    if not top[1] then
      return started
    end
    if mode_of(c) == 'waiting' and not is_current(c, pool, tonumber(top[2])) then
      return started
    end
    local id = redis.call('ZRANGE', parked, 0, 0)[1]
    if not id then
      break
    end
    local worker = worker_of(c, id)
    if worker then
      local _, detector = split_job(top[1])
      unqueue(c, top[1], pool, detector)
      give(c, top[1], worker, pool, tonumber(top[2]))
      started = started + 1
    else
      redis.call('ZREM', parked, id)
    end
  end
  if mode_of(c) == 'preempting' then
    local wanted = redis.call('ZCOUNT', queue, first_current(c, pool), '+inf') - redis.call('ZCARD', P .. 'preempting:' .. pool)
    while wanted > 0 do
      -- The one that began last loses least.
      local id = redis.call('ZREVRANGE', P .. 'stealable:' .. pool, 0, 0)[1]
      if not id then
        break
      end
      redis.call('ZREM', P .. 'stealable:' .. pool, id)
      if order_preempt(c, id, pool) then
        wanted = wanted - 1
      end
    end
  end
  return started
end

-- The newest job a worker may take now, leased to it; nil if there is none.
local function choose(c, worker)
  local P, best = c.P, nil
  local waiting = mode_of(c) == 'waiting'
  local function consider(key, pool)
    local top = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
    if top[1] then
      local score = tonumber(top[2])
      local current = is_current(c, pool, score)
      -- Strictly greater: among equals the first one asked, its own, wins.
      if (current or not waiting) and (not best or (current and not best.current)
        or (current == best.current and score > best.score)) then
        best = {job = top[1], score = score, pool = pool, current = current}
      end
    end
  end
  for _, pool in ipairs(worker.pools) do
    if worker.pinned then
      for _, detector in ipairs(worker.pinned) do
        consider(P .. 'pinned:' .. pool .. ':' .. detector, pool)
      end
    else
      consider(P .. 'own:' .. pool .. ':' .. worker.id, pool)
      consider(P .. 'queue:' .. pool, pool)
    end
  end
  if not best then
    return nil
  end
  local _, detector = split_job(best.job)
  unqueue(c, best.job, best.pool, detector)
  return lease(c, best.job, worker, best.pool, best.score)
end

-- Leases ---------------------------------------------------------------------------

-- Returns token, worker, class, since and state of a detector's newest lease.
local function lease_of(c, batch, detector)
  return string.match(redis.call('HGET', c.P .. 'leases:' .. batch, detector) or '', '^(%d+)|([^|]*)|(%a+)|(%d+)|(%a+)$')
end

-- End a lease: the worker is free, the entry says how it ended, so that a repeated call is told from a late one.
local function end_lease(c, batch, detector, token, id, class, since, state)
  local P, job = c.P, job_of(batch, detector)
  redis.call('HSET', P .. 'leases:' .. batch, detector, token .. '|' .. id .. '|' .. class .. '|' .. since .. '|' .. state)
  clear_timer(c, 'L' .. job)
  local f = redis.call('HMGET', P .. 'worker:' .. id, 'job', 'preempt', 'preempt_pool', 'pools')
  if f[1] == job then
    redis.call('HSET', P .. 'worker:' .. id, 'job', '', 'state', 'idle', 'class', '', 'preempt', '')
    if class == 'backlog' then
      for pool in string.gmatch(f[4], '[^,]+') do
        redis.call('ZREM', P .. 'stealable:' .. pool, id)
      end
    end
    if f[2] and f[2] ~= '' then
      redis.call('ZREM', P .. 'preempting:' .. f[3], id)
      redis.call('DEL', P .. 'orders:' .. id)
    end
  end
end

local function score_of(forced, order)
  return forced == '1' and order * 2 or order * 2 + 1
end

local function bury(c, letter, batch, detector, error_json, attempts, raw, spec)
  local key = c.P .. 'dead:' .. letter
  redis.call('HSET', key, 'error', error_json, 'attempts', attempts, 'at_ms', c.now, 'raw_uri', raw or '', 'spec', spec or '{}',
    'batch', batch, 'detector', detector or '')
  redis.call('ZADD', c.P .. 'dead', c.now, letter)
  local old = redis.call('ZRANGEBYSCORE', c.P .. 'dead', '-inf', c.now - DEAD_TTL_MS, 'LIMIT', 0, 100)
  local over = redis.call('ZCARD', c.P .. 'dead') - DEAD_KEPT
  if #old == 0 and over > 0 then
    old = redis.call('ZRANGE', c.P .. 'dead', 0, over - 1)
  end
  for _, name in ipairs(old) do
    redis.call('DEL', c.P .. 'dead:' .. name)
    redis.call('ZREM', c.P .. 'dead', name)
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
    place(c, job, detector, f[2], score_of(f[3], f[4]), 0)
    c.touched = f[2]
  end
  return 'queued'
end
