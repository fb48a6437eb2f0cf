-- Claims and leases ----------------------------------------------------------

local SCAN_CHUNK = 256

local function worker_of(P, id)
  local f = redis.call('HMGET', P .. 'worker:' .. id, 'pools', 'pinned')
  if not f[1] then
    return nil
  end
  local worker = {id = id, pools = {}, pinned = nil}
  for pool in string.gmatch(f[1], '[^,]+') do
    worker.pools[#worker.pools + 1] = pool
  end
  if f[2] and f[2] ~= '' then
    worker.pinned = {}
    for detector in string.gmatch(f[2], '[^,]+') do
      worker.pinned[detector] = true
    end
  end
  return worker
end

-- Lease a job to a worker; return the message the worker gets.
local function lease(P, now, job, worker, pool, class, lease_ms)
  local batch, detector = split_job(job)
  local f = fields(P, batch, 'spec', 'posted_ms', 'order')
  local raw = redis.call('HGET', P .. 'raws:' .. batch, detector)
  redis.call('ZREM', queue_key(P, pool, class), job)
  if not f[1] or not raw then
    return nil -- its batch has expired
  end
  local token = redis.call('INCR', P .. 'fence')
  local attempt = redis.call('HINCRBY', P .. 'attempts:' .. batch, detector, 1)
  redis.call('HSET', P .. 'lease:' .. job, 'token', token, 'worker', worker.id, 'class', class, 'pool', pool,
    'claimed_ms', text(now), 'order', f[3], 'lease_ms', lease_ms)
  redis.call('PEXPIRE', P .. 'lease:' .. job, 864000000)
  redis.call('ZADD', P .. 'leases', text(now + lease_ms), job)
  redis.call('HSET', P .. 'worker:' .. worker.id, 'job', job, 'state', 'busy')
  redis.call('HSET', P .. 'affinity', pool .. ':' .. detector, worker.id)
  for _, name in ipairs(worker.pools) do
    redis.call('ZREM', P .. 'parked:' .. name, worker.id)
  end
  if class == 'backlog' then
    redis.call('ZADD', P .. 'stealable', text(now), worker.id)
  else
    redis.call('ZREM', P .. 'stealable', worker.id)
  end
  emit(P, now, 'job_started', batch, detector, cjson.encode({worker = worker.id, attempt = attempt, priority = class}))
  return cjson.encode({job_id = job, batch = batch, detector = tonumber(detector), raw_uri = raw, priority = class,
    attempt = attempt, token = token, lease_ms = lease_ms, posted_ms = tonumber(f[2]), claimed_ms = now, spec = f[1]})
end

-- Another worker, alive, that has this detector's calibs.
local function better_worker(P, pool, detector, worker)
  local owner = redis.call('HGET', P .. 'affinity', pool .. ':' .. detector)
  if not owner or owner == worker.id then
    return nil
  end
  return redis.call('ZSCORE', P .. 'workers', owner) and owner or nil
end

-- Choose the newest job a worker may take. Returns message, or nil and when to ask again.
local function choose(P, now, worker, lease_ms, grace_ms, mode, backlog_age_ms)
  local ask_again
  local classes = mode == 'waiting' and {'current'} or {'current', 'backlog'}
  for _, class in ipairs(classes) do
    for _, pool in ipairs(worker.pools) do
      local queue = queue_key(P, pool, class)
      local from, spare, spare_order = 0, nil, nil
      repeat
        local entries = redis.call('ZREVRANGE', queue, from, from + SCAN_CHUNK - 1, 'WITHSCORES')
        for i = 1, #entries, 2 do
          local job, order = entries[i], entries[i + 1]
          if spare and order ~= spare_order then
            entries = {} -- an older exposure never goes before a newer one
            break
          end
          local batch, detector = split_job(job)
          if not worker.pinned or worker.pinned[detector] then
            local posted = tonumber(redis.call('HGET', P .. 'batch:' .. batch, 'posted_ms') or '0')
            if posted == 0 then
              redis.call('ZREM', queue, job)
            elseif class == 'backlog' and backlog_age_ms > 0 and posted + backlog_age_ms < now then
              redis.call('ZREM', queue, job)
              settle(P, batch, detector, 'superseded', 'left the backlog unprocessed: too old')
              count(P, 'expired')
              schedule_gather(P, now, batch)
            elseif not better_worker(P, pool, detector, worker) then
              local owner = redis.call('HGET', P .. 'affinity', pool .. ':' .. detector)
              if owner == worker.id or worker.pinned then
                local message = lease(P, now, job, worker, pool, class, lease_ms)
                if message then return message end
              elseif not spare then
                spare, spare_order = job, order
              end
            elseif posted + grace_ms <= now then
              if not spare then
                spare, spare_order = job, order
              end
            elseif not ask_again or posted + grace_ms < ask_again then
              ask_again = posted + grace_ms
            end
          end
        end
        from = from + SCAN_CHUNK
      until #entries < 2 * SCAN_CHUNK
      if spare then
        local message = lease(P, now, spare, worker, pool, class, lease_ms)
        if message then return message end
      end
    end
  end
  return nil, ask_again
end

local function hand_over(P, worker, message, lease_ms)
  redis.call('RPUSH', P .. 'wake:' .. worker, message)
  redis.call('PEXPIRE', P .. 'wake:' .. worker, math.max(lease_ms, 60000))
end

-- Give queued jobs of a pool to workers that wait for one.
local function serve_parked(P, now, pool)
  local mode = redis.call('GET', P .. 'mode') or 'consuming'
  local parked = redis.call('ZRANGE', P .. 'parked:' .. pool, 0, -1)
  for _, id in ipairs(parked) do
    local worker = worker_of(P, id)
    if not worker then
      redis.call('ZREM', P .. 'parked:' .. pool, id)
    else
      local p = redis.call('HMGET', P .. 'worker:' .. id, 'lease_ms', 'grace_ms', 'backlog_age_ms')
      local message, again = choose(P, now, worker, tonumber(p[1]), tonumber(p[2]), mode, tonumber(p[3]))
      if message then
        hand_over(P, id, message, tonumber(p[1]))
      elseif again then
        -- It may take the job when the grace time of the preferred worker is over.
        redis.call('RPUSH', P .. 'wake:' .. id, cjson.encode({order = 'ask', wait_ms = math.max(again - now, 1)}))
        redis.call('PEXPIRE', P .. 'wake:' .. id, 60000)
      elseif redis.call('ZCARD', queue_key(P, pool, 'current')) == 0
        and redis.call('ZCARD', queue_key(P, pool, 'backlog')) == 0 then
        return
      end
    end
  end
end

-- In mode preempting: current jobs that found no free worker take one that runs backlog.
local function preempt(P, now, pool)
  if redis.call('GET', P .. 'mode') ~= 'preempting' then
    return
  end
  local wanted = redis.call('ZCARD', queue_key(P, pool, 'current'))
  local running = redis.call('ZREVRANGE', P .. 'stealable', 0, -1)
  for _, id in ipairs(running) do
    if wanted == 0 then
      return
    end
    local worker = worker_of(P, id)
    local serves = false
    if worker then
      for _, name in ipairs(worker.pools) do
        serves = serves or name == pool
      end
    end
    if serves and worker.pinned then
      serves = false
      for _, job in ipairs(redis.call('ZREVRANGE', queue_key(P, pool, 'current'), 0, SCAN_CHUNK)) do
        local _, detector = split_job(job)
        serves = serves or worker.pinned[detector]
      end
    end
    if serves then
      redis.call('ZREM', P .. 'stealable', id)
      hand_over(P, id, cjson.encode({order = 'preempt'}), 10000)
      count(P, 'preemptions')
      wanted = wanted - 1
    end
  end
end

local function check_lease(P, job, token)
  local held = redis.call('HGET', P .. 'lease:' .. job, 'token')
  return held and held == token
end

local function end_lease(P, job)
  local worker = redis.call('HGET', P .. 'lease:' .. job, 'worker')
  redis.call('DEL', P .. 'lease:' .. job)
  redis.call('ZREM', P .. 'leases', job)
  if worker and redis.call('HGET', P .. 'worker:' .. worker, 'job') == job then
    redis.call('HSET', P .. 'worker:' .. worker, 'job', '', 'state', 'idle')
    redis.call('ZREM', P .. 'stealable', worker)
  end
  return worker
end

-- Put a job whose run ended without an end back into its queue, or into the dead letters.
local function give_back(P, now, job, class, order, pool, counted, error_json, wait_ms)
  local batch, detector = split_job(job)
  local limit = redis.call('HGET', P .. 'batch:' .. batch, 'max_attempts')
  if not limit then
    return 'gone'
  end
  local attempts
  if counted then
    attempts = tonumber(redis.call('HGET', P .. 'attempts:' .. batch, detector) or '0')
  else
    attempts = redis.call('HINCRBY', P .. 'attempts:' .. batch, detector, -1)
  end
  if counted and attempts >= tonumber(limit) then
    local uri = redis.call('HGET', P .. 'raws:' .. batch, detector) or ''
    redis.call('HSET', P .. 'dead:' .. job, 'error', error_json, 'attempts', attempts, 'at_ms', text(now),
      'pool', pool, 'order', order, 'raw_uri', uri)
    redis.call('PEXPIRE', P .. 'dead:' .. job, 864000000)
    redis.call('ZADD', P .. 'dead', text(now), job)
    local over = redis.call('ZCARD', P .. 'dead') - DEAD_KEPT
    if over > 0 then
      for _, old in ipairs(redis.call('ZRANGE', P .. 'dead', 0, over - 1)) do
        redis.call('DEL', P .. 'dead:' .. old)
      end
      redis.call('ZREMRANGEBYRANK', P .. 'dead', 0, over - 1)
    end
    local facts = cjson.decode(error_json)
    settle(P, batch, detector, 'failed', tostring(facts.message or facts.code or 'failed'))
    first_result(P, now, batch)
    count(P, 'dead_letters')
    emit(P, now, 'job_failed', batch, detector, error_json)
    schedule_gather(P, now, batch)
    return 'dead'
  end
  if wait_ms and wait_ms > 0 then
    redis.call('ZADD', P .. 'delayed', text(now + wait_ms), job)
  else
    enqueue(P, batch, detector, pool, class, order)
  end
  emit(P, now, 'job_returned', batch, detector, error_json)
  return 'queued'
end

-- claim: ARGV worker, pools, pinned, host, lease_ms, grace_ms, backlog_age_ms
redis.register_function('rapid_v1_claim', function(keys, args)
  local P, now, id = keys[1], now_ms(keys[1]), args[1]
  redis.call('HSET', P .. 'worker:' .. id, 'pools', args[2], 'pinned', args[3], 'host', args[4], 'lease_ms', args[5],
    'grace_ms', args[6], 'backlog_age_ms', args[7], 'seen_ms', text(now))
  redis.call('PEXPIRE', P .. 'worker:' .. id, 86400000)
  if not redis.call('ZSCORE', P .. 'workers', id) then
    emit(P, now, 'worker_joined', nil, nil, cjson.encode({worker = id, host = args[4]}))
  end
  redis.call('ZADD', P .. 'workers', text(now), id)
  local pending = redis.call('LPOP', P .. 'wake:' .. id)
  while pending do
    local message = cjson.decode(pending)
    if message.job_id and check_lease(P, message.job_id, tostring(message.token)) then
      return pending
    end
    pending = redis.call('LPOP', P .. 'wake:' .. id) -- orders are for a busy worker; this one is free
  end
  local mode = redis.call('GET', P .. 'mode') or 'consuming'
  local worker = worker_of(P, id)
  local message, again = choose(P, now, worker, tonumber(args[5]), tonumber(args[6]), mode, tonumber(args[7]))
  if message then
    return message
  end
  redis.call('HSET', P .. 'worker:' .. id, 'state', 'idle', 'job', '')
  for _, pool in ipairs(worker.pools) do
    redis.call('ZADD', P .. 'parked:' .. pool, text(now), id)
  end
  return cjson.encode({order = 'wait', wait_ms = again and math.max(again - now, 1) or 0})
end)

-- heartbeat: ARGV worker, job or '', token, lease_ms
redis.register_function('rapid_v1_heartbeat', function(keys, args)
  local P, now, id, job = keys[1], now_ms(keys[1]), args[1], args[2]
  redis.call('HSET', P .. 'worker:' .. id, 'seen_ms', text(now))
  redis.call('ZADD', P .. 'workers', text(now), id)
  local held = 1
  if job ~= '' then
    if check_lease(P, job, args[3]) then
      redis.call('ZADD', P .. 'leases', text(now + tonumber(args[4])), job)
    else
      held = 0
    end
  end
  return cjson.encode({held = held == 1, mode = redis.call('GET', P .. 'mode') or 'consuming'})
end)

-- complete: ARGV job, token, metrics, claim_next (1 or 0), worker
redis.register_function('rapid_v1_complete', function(keys, args)
  local P, now, job = keys[1], now_ms(keys[1]), args[1]
  if not check_lease(P, job, args[2]) then
    count(P, 'refused')
    return refused('lease_lost', job)
  end
  local batch, detector = split_job(job)
  local id = end_lease(P, job)
  if redis.call('SADD', P .. 'finished:' .. batch, detector) == 1 then
    redis.call('HSET', P .. 'batch:' .. batch, 'changed', '1')
  end
  redis.call('HDEL', P .. 'reasons:' .. batch, detector)
  redis.call('SREM', P .. 'unsettled:' .. batch, detector)
  redis.call('HSET', P .. 'metrics:' .. batch, detector, args[3])
  first_result(P, now, batch)
  count(P, 'finished')
  emit(P, now, 'job_finished', batch, detector, args[3])
  schedule_gather(P, now, batch)
  if args[4] ~= '1' then
    return ''
  end
  local worker = worker_of(P, id)
  if not worker then
    return ''
  end
  local p = redis.call('HMGET', P .. 'worker:' .. id, 'lease_ms', 'grace_ms', 'backlog_age_ms')
  local mode = redis.call('GET', P .. 'mode') or 'consuming'
  return choose(P, now, worker, tonumber(p[1]), tonumber(p[2]), mode, tonumber(p[3])) or ''
end)

-- fail: ARGV job, token, error (JSON), retry (later, never, ignore)
redis.register_function('rapid_v1_fail', function(keys, args)
  local P, now, job = keys[1], now_ms(keys[1]), args[1]
  if not check_lease(P, job, args[2]) then
    count(P, 'refused')
    return refused('lease_lost', job)
  end
  local f = redis.call('HMGET', P .. 'lease:' .. job, 'class', 'order', 'pool')
  local batch, detector = split_job(job)
  end_lease(P, job)
  count(P, 'failed')
  if args[4] == 'ignore' then
    local facts = cjson.decode(args[3])
    settle(P, batch, detector, 'excluded', tostring(facts.message or 'nothing to do'))
    first_result(P, now, batch)
    schedule_gather(P, now, batch)
    return 'settled'
  end
  if args[4] == 'never' then
    -- Every attempt would fail the same way.
    redis.call('HSET', P .. 'attempts:' .. batch, detector, redis.call('HGET', P .. 'batch:' .. batch, 'max_attempts') or 1)
  end
  local attempts = tonumber(redis.call('HGET', P .. 'attempts:' .. batch, detector) or '1')
  return give_back(P, now, job, f[1], f[2], f[3], true, args[3], BACKOFF_MS * attempts * attempts)
end)

-- release: ARGV job, token, count_attempt (1 or 0), reason
redis.register_function('rapid_v1_release', function(keys, args)
  local P, now, job = keys[1], now_ms(keys[1]), args[1]
  if not check_lease(P, job, args[2]) then
    return refused('lease_lost', job)
  end
  local f = redis.call('HMGET', P .. 'lease:' .. job, 'class', 'order', 'pool')
  end_lease(P, job)
  count(P, 'released')
  local outcome = give_back(P, now, job, f[1], f[2], f[3], args[3] == '1',
    cjson.encode({code = 'released', message = args[4]}), 0)
  serve_parked(P, now, f[3])
  return outcome
end)

-- tick: expire leases and bring back delayed jobs. ARGV worker_timeout_ms. Returns when to come again (ms from now).
redis.register_function('rapid_v1_tick', function(keys, args)
  local P, now = keys[1], now_ms(keys[1])
  local pools = {}
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', text(now))) do
    local f = redis.call('HMGET', P .. 'lease:' .. job, 'class', 'order', 'pool', 'worker')
    end_lease(P, job)
    if f[1] then
      redis.call('DEL', P .. 'wake:' .. f[4])
      count(P, 'leases_lost')
      give_back(P, now, job, f[1], f[2], f[3], true,
        cjson.encode({code = 'lease_expired', message = 'worker ' .. f[4] .. ' gave no sign of life', worker = f[4]}), 0)
      pools[f[3]] = true
    end
  end
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', P .. 'delayed', '-inf', text(now))) do
    redis.call('ZREM', P .. 'delayed', job)
    local batch, detector = split_job(job)
    local f = fields(P, batch, 'pool', 'class', 'order')
    if f[1] then
      enqueue(P, batch, detector, f[1], f[2], f[3])
      pools[f[1]] = true
    end
  end
  for _, batch in ipairs(redis.call('ZRANGEBYSCORE', P .. 'gather_leases', '-inf', text(now))) do
    redis.call('ZREM', P .. 'gather_leases', batch)
    if redis.call('EXISTS', P .. 'batch:' .. batch) == 1 then
      redis.call('HSET', P .. 'batch:' .. batch, 'gathering', '0', 'changed', '1')
      gather_at(P, batch, now)
    end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', text(now - tonumber(args[1])))) do
    redis.call('ZREM', P .. 'workers', id)
    redis.call('ZREM', P .. 'stealable', id)
    for _, pool in ipairs(redis.call('SMEMBERS', P .. 'pools')) do
      redis.call('ZREM', P .. 'parked:' .. pool, id)
    end
    redis.call('DEL', P .. 'worker:' .. id)
    emit(P, now, 'worker_left', nil, nil, cjson.encode({worker = id}))
  end
  for pool, _ in pairs(pools) do
    serve_parked(P, now, pool)
  end
  local next_ms = -1
  for _, name in ipairs({'leases', 'delayed', 'gather_leases'}) do
    local first = redis.call('ZRANGE', P .. name, 0, 0, 'WITHSCORES')
    if first[2] and (next_ms < 0 or tonumber(first[2]) < next_ms) then
      next_ms = tonumber(first[2])
    end
  end
  return next_ms < 0 and -1 or math.max(next_ms - now, 0)
end)
