-- Queues and placement -------------------------------------------------------------

local function newest_of(c, pool)
  if not c.newest[pool] then
    local order, until_ms = string.match(c.control['newest:' .. pool] or '', '^(%d+)|(%d+)$')
    c.newest[pool] = order and c.now < tonumber(until_ms) and tonumber(order) or 0
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

-- Take a job out of where it is queued; owner: whose own queue it is known to be in.
local function unqueue(c, job, pool, detector, owner)
  local P = c.P
  local removed = owner and redis.call('ZREM', P .. 'held:' .. pool, job) or 0
  if removed == 0 then
    removed = redis.call('ZREM', P .. 'queue:' .. pool, job)
  end
  if removed == 0 and not owner then
    removed = redis.call('ZREM', P .. 'held:' .. pool, job)
    if removed == 0 then
      removed = redis.call('ZREM', P .. 'pinned:' .. pool .. ':' .. detector, job)
    end
  end
  if removed == 1 then
    owner = owner or redis.call('HGET', P .. 'owners:' .. pool, job)
    if owner then
      redis.call('HDEL', P .. 'owners:' .. pool, job)
      redis.call('ZREM', P .. 'own:' .. pool .. ':' .. owner, job)
    end
  end
  return removed
end

local function worker_of(c, id)
  local f = redis.call('HMGET', c.P .. 'worker:' .. id, 'pools', 'pinned', 'lease_ms', 'job', 'preempt', 'preempt_pool')
  if not f[1] then
    return nil
  end
  local worker = {id = id, pools = {}, lease_ms = tonumber(f[3]), job = f[4] or '', preempt = f[5] or '', preempt_pool = f[6]}
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
local function lease(c, job, worker, pool, score, is_own)
  local P = c.P
  local batch, detector = split_job(job)
  local f = c.batches[batch]
  if not f then
    f = redis.call('HMGET', P .. 'batch:' .. batch, 'spec', 'posted_ms')
    c.batches[batch] = f
  end
  local raw = redis.call('HGET', P .. 'raws:' .. batch, detector)
  local token = next_token(c)
  local attempt = redis.call('HINCRBY', P .. 'attempts:' .. batch, detector, 1)
  local class = is_current(c, pool, score) and 'current' or 'backlog'
  redis.call('HSET', P .. 'leases:' .. batch, detector, token .. '|' .. worker.id .. '|' .. class .. '|' .. string.format('%.0f', c.now) .. '|held')
  set_timer(c, 'L' .. job, c.now + worker.lease_ms)
  redis.call('HSET', P .. 'worker:' .. worker.id, 'job', job, 'state', 'busy', 'class', class)
  if not is_own then
    redis.call('HSET', P .. 'affinity:' .. pool, detector, worker.id)
  end
  if class == 'backlog' and not worker.pinned then
    for _, name in ipairs(worker.pools) do
      redis.call('ZADD', P .. 'stealable:' .. name, c.now, worker.id)
    end
  end
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

-- Put a batch's jobs where their workers find them: to waiting workers at once, else into queues. A job of a pinned
-- detector goes to a worker it is pinned to; one whose calibs a worker has, to that worker, or, if it is busy, is held for
-- it for the grace time; any other to the queue for anyone, which spread() then serves. score_of_detector: nil for the
-- batch's score. Returns how many started.
local function place_all(c, batch, detectors, pool, score, grace_ms, score_of_detector)
  local P, started, n_held = c.P, 0, 0
  local own, owners, held, queue, parked = {}, {}, {}, {}, {}
  local affinity = #detectors > 0 and redis.call('HMGET', P .. 'affinity:' .. pool, unpack(detectors)) or {}
  for i, detector in ipairs(detectors) do
    local job = job_of(batch, detector)
    local job_score = score_of_detector and score_of_detector[detector] or score
    local current = is_current(c, pool, job_score)
    local may_start = current or c.mode ~= 'waiting'
    local urgent = current and c.mode == 'preempting'
    local pins, owner = pinned_to(c, pool, detector), affinity[i]
    if owner and parked[owner] == nil then
      parked[owner] = redis.call('ZSCORE', P .. 'workers', owner) and
        (redis.call('ZSCORE', P .. 'parked:' .. pool, owner) and 'yes' or 'no') or 'gone'
    end
    local taker
    if pins then
      for id in string.gmatch(pins, '[^,]+') do
        if may_start and not taker and redis.call('HGET', P .. 'worker:' .. id, 'state') == 'parked' then
          taker = id
        end
      end
    elseif owner and may_start and parked[owner] == 'yes' then
      taker, parked[owner] = owner, 'no'
    end
    if taker then
      give(c, job, worker_of(c, taker), pool, job_score)
      started = started + 1
    elseif pins then
      redis.call('ZADD', P .. 'pinned:' .. pool .. ':' .. detector, job_score, job)
      for id in string.gmatch(urgent and pins or '', '[^,]+') do
        if order_preempt(c, id, pool) then
          break
        end
      end
    elseif owner and parked[owner] ~= 'gone' then
      own[owner] = own[owner] or {}
      table.insert(own[owner], job_score)
      table.insert(own[owner], job)
      table.insert(owners, job)
      table.insert(owners, owner)
      local place = grace_ms > 0 and held or queue
      table.insert(place, job_score)
      table.insert(place, job)
      if grace_ms > 0 and urgent then
        order_preempt(c, owner, pool)
      end
    else
      table.insert(queue, job_score)
      table.insert(queue, job)
    end
  end
  for owner, entries in pairs(own) do
    call_many('ZADD', P .. 'own:' .. pool .. ':' .. owner, entries)
  end
  call_many('HSET', P .. 'owners:' .. pool, owners)
  call_many('ZADD', P .. 'queue:' .. pool, queue)
  if #held > 0 then
    call_many('ZADD', P .. 'held:' .. pool, held)
    if not redis.call('ZSCORE', P .. 'timers', 'H' .. batch) then
      set_timer(c, 'H' .. batch, c.now + grace_ms)
    end
  end
  return started
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
    if c.mode == 'waiting' and not is_current(c, pool, tonumber(top[2])) then
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
  if c.mode == 'preempting' then
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
  local waiting = c.mode == 'waiting'
  local function consider(key, pool, owner)
    local top = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
    if top[1] then
      local score = tonumber(top[2])
      local current = is_current(c, pool, score)
      -- Strictly greater: among equals the first one asked, its own, wins.
      if (current or not waiting) and (not best or (current and not best.current)
        or (current == best.current and score > best.score)) then
        best = {job = top[1], score = score, pool = pool, current = current, owner = owner}
      end
    end
  end
  for _, pool in ipairs(worker.pools) do
    if worker.pinned then
      for _, detector in ipairs(worker.pinned) do
        consider(P .. 'pinned:' .. pool .. ':' .. detector, pool)
      end
    else
      consider(P .. 'own:' .. pool .. ':' .. worker.id, pool, worker.id)
      consider(P .. 'queue:' .. pool, pool)
    end
  end
  if not best then
    return nil
  end
  local _, detector = split_job(best.job)
  unqueue(c, best.job, best.pool, detector, best.owner)
  return lease(c, best.job, worker, best.pool, best.score, best.owner ~= nil)
end

-- Leases ---------------------------------------------------------------------------

-- Returns token, worker, class, since and state of a detector's newest lease. since: when it began or, over, ended.
local function lease_of(c, batch, detector)
  return string.match(redis.call('HGET', c.P .. 'leases:' .. batch, detector) or '', '^(%d+)|([^|]*)|(%a+)|(%d+)|(%a+)$')
end

-- End a lease: the worker is free, the entry says how it ended, so that a repeated call is told from a late one.
-- Returns the worker, if the board knows it. With stays_busy the caller says at once what the worker does next.
local function end_lease(c, batch, detector, token, id, class, state, stays_busy)
  local P, job = c.P, job_of(batch, detector)
  redis.call('HSET', P .. 'leases:' .. batch, detector,
    token .. '|' .. id .. '|' .. class .. '|' .. string.format('%.0f', c.now) .. '|' .. state)
  clear_timer(c, 'L' .. job)
  local worker = worker_of(c, id)
  if not worker or worker.job ~= job then
    return worker
  end
  worker.job = ''
  if not stays_busy or worker.preempt ~= '' then
    redis.call('HSET', P .. 'worker:' .. id, 'job', '', 'state', 'idle', 'class', '', 'preempt', '')
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
    place_all(c, batch, {detector}, f[2], score_of(f[3], f[4]), 0)
    c.touched = f[2]
  end
  return 'queued'
end
