-- Leading, control and looking ---------------------------------------------------

-- lead: ARGV head, ttl_ms. Takes or keeps the lead; returns token (0 if another leads) and ms until it may be free.
redis.register_function('rapid_v1_lead', function(keys, args)
  local P, now, key = keys[1], now_ms(keys[1]), keys[1] .. 'leader'
  local f = redis.call('HMGET', key, 'id', 'token', 'until_ms')
  if f[1] and f[1] ~= args[1] and tonumber(f[3]) > now then
    return {0, math.max(tonumber(f[3]) - now, 1)}
  end
  local token = f[2]
  if not token or f[1] ~= args[1] or tonumber(f[3]) <= now then
    token = redis.call('INCR', P .. 'fence')
  end
  redis.call('HSET', key, 'id', args[1], 'token', token, 'until_ms', text(now + tonumber(args[2])))
  return {tonumber(token), tonumber(args[2])}
end)

-- resign: ARGV head, token
redis.register_function('rapid_v1_resign', function(keys, args)
  local P, key = keys[1], keys[1] .. 'leader'
  local f = redis.call('HMGET', key, 'id', 'token')
  if f[1] == args[1] and f[2] == args[2] then
    redis.call('DEL', key)
    redis.call('LPUSH', P .. 'leader_wake', '1')
    redis.call('PEXPIRE', P .. 'leader_wake', 60000)
    return 1
  end
  return 0
end)

-- leave: ARGV worker. A worker that stops says so: nobody waits for it.
redis.register_function('rapid_v1_leave', function(keys, args)
  local P, now, id = keys[1], now_ms(keys[1]), args[1]
  local pending = redis.call('LPOP', P .. 'wake:' .. id)
  while pending do
    local message = cjson.decode(pending)
    if message.job_id and check_lease(P, message.job_id, tostring(message.token)) then
      local f = redis.call('HMGET', P .. 'lease:' .. message.job_id, 'class', 'order', 'pool')
      end_lease(P, message.job_id)
      give_back(P, now, message.job_id, f[1], f[2], f[3], false, cjson.encode({code = 'released', message = 'its worker stopped'}), 0)
    end
    pending = redis.call('LPOP', P .. 'wake:' .. id)
  end
  local worker = worker_of(P, id)
  redis.call('ZREM', P .. 'workers', id)
  redis.call('ZREM', P .. 'stealable', id)
  redis.call('DEL', P .. 'worker:' .. id)
  emit(P, now, 'worker_left', nil, nil, cjson.encode({worker = id}))
  if worker then
    for _, pool in ipairs(worker.pools) do
      redis.call('ZREM', P .. 'parked:' .. pool, id)
    end
    for _, pool in ipairs(worker.pools) do
      serve_parked(P, now, pool)
    end
  end
  return 1
end)

-- mode: ARGV mode
redis.register_function('rapid_v1_mode', function(keys, args)
  local P, now = keys[1], now_ms(keys[1])
  redis.call('SET', P .. 'mode', args[1])
  emit(P, now, 'control_changed', nil, nil, cjson.encode({mode = args[1]}))
  for _, pool in ipairs(redis.call('SMEMBERS', P .. 'pools')) do
    serve_parked(P, now, pool)
    preempt(P, now, pool)
  end
  return args[1]
end)

-- retry_dead: ARGV job. Queues a dead letter's job again, attempts counted anew.
redis.register_function('rapid_v1_retry_dead', function(keys, args)
  local P, now, job = keys[1], now_ms(keys[1]), args[1]
  local letter = redis.call('HMGET', P .. 'dead:' .. job, 'pool', 'order')
  if not letter[1] then
    return refused('not_found', job)
  end
  local batch, detector = split_job(job)
  if redis.call('EXISTS', P .. 'batch:' .. batch) == 0 then
    return refused('expired', job)
  end
  redis.call('DEL', P .. 'dead:' .. job)
  redis.call('ZREM', P .. 'dead', job)
  redis.call('HSET', P .. 'attempts:' .. batch, detector, 0)
  redis.call('HDEL', P .. 'reasons:' .. batch, detector)
  redis.call('SADD', P .. 'unsettled:' .. batch, detector)
  enqueue(P, batch, detector, letter[1], 'backlog', letter[2])
  serve_parked(P, now, letter[1])
  return 1
end)

-- discard_dead: ARGV job
redis.register_function('rapid_v1_discard_dead', function(keys, args)
  local P, job = keys[1], args[1]
  redis.call('DEL', P .. 'dead:' .. job)
  return redis.call('ZREM', P .. 'dead', job)
end)

-- dead: ARGV limit
redis.register_function('rapid_v1_dead', function(keys, args)
  local P, letters = keys[1], {}
  for _, job in ipairs(redis.call('ZREVRANGE', P .. 'dead', 0, tonumber(args[1]) - 1)) do
    local f = redis.call('HMGET', P .. 'dead:' .. job, 'error', 'attempts', 'at_ms', 'raw_uri')
    letters[#letters + 1] = {job_id = job, error = f[1], attempts = tonumber(f[2] or 0), at_ms = tonumber(f[3] or 0), raw_uri = f[4]}
  end
  return #letters > 0 and cjson.encode(letters) or '[]'
end)

-- status: no arguments
redis.register_function('rapid_v1_status', function(keys)
  local P, now = keys[1], now_ms(keys[1])
  local queues, workers = {}, {}
  for _, pool in ipairs(redis.call('SMEMBERS', P .. 'pools')) do
    queues[#queues + 1] = {pool = pool, current = redis.call('ZCARD', queue_key(P, pool, 'current')),
      backlog = redis.call('ZCARD', queue_key(P, pool, 'backlog')), parked = redis.call('ZCARD', P .. 'parked:' .. pool)}
  end
  for _, id in ipairs(redis.call('ZRANGE', P .. 'workers', 0, -1)) do
    local f = redis.call('HMGET', P .. 'worker:' .. id, 'state', 'job', 'seen_ms', 'pools', 'host', 'pinned')
    workers[#workers + 1] = {worker_id = id, state = f[1] or 'idle', job_id = f[2] or '', seen_ms = tonumber(f[3] or 0),
      pools = f[4] or '', host = f[5] or '', pinned = f[6] or ''}
  end
  local leader = redis.call('HMGET', P .. 'leader', 'id', 'until_ms')
  local counters = {}
  local flat = redis.call('HGETALL', P .. 'counters')
  for i = 1, #flat, 2 do
    counters[flat[i]] = tonumber(flat[i + 1])
  end
  return cjson.encode({now_ms = now, mode = redis.call('GET', P .. 'mode') or 'consuming', queues = queues, workers = workers,
    running = redis.call('ZCARD', P .. 'leases'), delayed = redis.call('ZCARD', P .. 'delayed'),
    gathers_due = redis.call('ZCARD', P .. 'gathers'), gathers_running = redis.call('ZCARD', P .. 'gather_leases'),
    dead_letters = redis.call('ZCARD', P .. 'dead'), leader = leader[1] or '', leader_until_ms = tonumber(leader[2] or 0),
    counters = counters})
end)

-- publish: ARGV kind, batch, detector, data (JSON)
redis.register_function('rapid_v1_publish', function(keys, args)
  emit(keys[1], now_ms(keys[1]), args[1], args[2], args[3], args[4])
  return 1
end)
