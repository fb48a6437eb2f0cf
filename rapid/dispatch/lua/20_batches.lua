-- Batches and gathers ----------------------------------------------------------

local function arrive(P, now, batch, raws)
  local f = fields(P, batch, 'pool', 'class', 'order')
  local queued = 0
  for detector, uri in pairs(raws) do
    local job = job_of(batch, detector)
    local reason = redis.call('HGET', P .. 'reasons:' .. batch, detector)
    local was_quarantined = reason and string.sub(reason, 1, 11) == 'quarantined'
    if was_quarantined then
      redis.call('HDEL', P .. 'reasons:' .. batch, detector)
      redis.call('SADD', P .. 'unsettled:' .. batch, detector)
    end
    redis.call('HSET', P .. 'raws:' .. batch, detector, uri)
    if redis.call('SREM', P .. 'waiting:' .. batch, detector) == 1 or was_quarantined then
      local class = f[2]
      if reason and string.sub(reason, 1, 10) == 'superseded' then
        class = 'backlog'
      end
      enqueue(P, batch, detector, f[1], class, f[3])
      queued = queued + 1
    end
  end
  return queued
end

-- post: ARGV batch, spec, info, facts (JSON: order pool class gather_ms regather_ms deadline_ms max_attempts ttl_ms version),
--       expected, raws, excluded, superseded, finished (JSON)
redis.register_function('rapid_v1_post', function(keys, args)
  local P, now, batch = keys[1], now_ms(keys[1]), args[1]
  local facts = cjson.decode(args[4])
  local raws = cjson.decode(args[6])
  local created = redis.call('EXISTS', P .. 'batch:' .. batch) == 0
  if created then
    -- A newer exposure makes what is still queued of older ones backlog.
    local class = facts.class
    if class == 'current' then
      local newest = redis.call('ZREVRANGE', queue_key(P, facts.pool, 'current'), 0, 0, 'WITHSCORES')
      if newest[2] and tonumber(newest[2]) > facts.order then
        class = 'backlog'
      elseif newest[2] then
        local older = redis.call('ZRANGEBYSCORE', queue_key(P, facts.pool, 'current'), '-inf', '(' .. text(facts.order), 'WITHSCORES')
        for i = 1, #older, 2 do
          redis.call('ZADD', queue_key(P, facts.pool, 'backlog'), older[i + 1], older[i])
          redis.call('ZREM', queue_key(P, facts.pool, 'current'), older[i])
          local old = split_job(older[i])
          redis.call('HSET', P .. 'batch:' .. old, 'class', 'backlog')
        end
      end
    end
    redis.call('HSET', P .. 'batch:' .. batch, 'spec', args[2], 'info', args[3], 'order', text(facts.order), 'pool', facts.pool,
      'class', class, 'posted_ms', text(now), 'gather_ms', facts.gather_ms, 'regather_ms', facts.regather_ms,
      'deadline_ms', text(now + facts.deadline_ms), 'max_attempts', facts.max_attempts, 'ttl_ms', facts.ttl_ms,
      'version', facts.version, 'changed', '0', 'gathering', '0')
    redis.call('SADD', P .. 'pools', facts.pool)
    redis.call('ZADD', P .. 'recent', text(now), batch)
    redis.call('ZREMRANGEBYRANK', P .. 'recent', 0, -1 - RECENT_KEPT)
    count(P, 'posted')
  end
  local finished = cjson.decode(args[9])
  for _, detector in ipairs(cjson.decode(args[5])) do
    detector = text(detector)
    if redis.call('SADD', P .. 'expected:' .. batch, detector) == 1 and not finished[detector] then
      redis.call('SADD', P .. 'unsettled:' .. batch, detector)
      redis.call('SADD', P .. 'waiting:' .. batch, detector)
    end
  end
  for detector, metrics in pairs(finished) do
    redis.call('SADD', P .. 'finished:' .. batch, detector)
    redis.call('HSET', P .. 'metrics:' .. batch, detector, metrics)
    redis.call('SREM', P .. 'waiting:' .. batch, detector)
    redis.call('SREM', P .. 'unsettled:' .. batch, detector)
    first_result(P, now, batch)
  end
  for detector, reason in pairs(cjson.decode(args[7])) do
    settle(P, batch, detector, 'excluded', reason)
  end
  for _, detector in ipairs(cjson.decode(args[8])) do
    detector = text(detector)
    -- Settled for the gather, and on the backlog all the same.
    redis.call('HSET', P .. 'reasons:' .. batch, detector, 'superseded|a newer image took its place')
    redis.call('SREM', P .. 'unsettled:' .. batch, detector)
  end
  local queued = arrive(P, now, batch, raws)
  touch(P, batch, facts.ttl_ms)
  if created then
    emit(P, now, 'exposure_posted', batch, nil, cjson.encode({expected = #cjson.decode(args[5]), queued = queued, pool = facts.pool}))
  end
  schedule_gather(P, now, batch)
  serve_parked(P, now, facts.pool)
  preempt(P, now, facts.pool)
  return cjson.encode({created = created, queued = queued, class = redis.call('HGET', P .. 'batch:' .. batch, 'class')})
end)

-- arrive: ARGV batch, raws (JSON). Returns the number of jobs queued, or -1 for an unknown batch.
redis.register_function('rapid_v1_arrive', function(keys, args)
  local P, now, batch = keys[1], now_ms(keys[1]), args[1]
  local f = fields(P, batch, 'pool', 'ttl_ms')
  if not f[1] then
    return -1
  end
  local queued = arrive(P, now, batch, cjson.decode(args[2]))
  touch(P, batch, f[2])
  serve_parked(P, now, f[1])
  preempt(P, now, f[1])
  return queued
end)

-- settle: ARGV batch, state, reasons (JSON detector -> reason). For quarantined and excluded detectors.
redis.register_function('rapid_v1_settle', function(keys, args)
  local P, now, batch = keys[1], now_ms(keys[1]), args[1]
  local f = fields(P, batch, 'pool')
  if not f[1] then
    return -1
  end
  local settled = 0
  for detector, reason in pairs(cjson.decode(args[3])) do
    if redis.call('SISMEMBER', P .. 'unsettled:' .. batch, detector) == 1 then
      dequeue(P, job_of(batch, detector), f[1])
      settle(P, batch, detector, args[2], reason)
      settled = settled + 1
    end
  end
  schedule_gather(P, now, batch)
  return settled
end)

-- expect: ARGV batch, expected (JSON list). Replaces the expected set: a partial read-out became known late.
redis.register_function('rapid_v1_expect', function(keys, args)
  local P, now, batch = keys[1], now_ms(keys[1]), args[1]
  if redis.call('EXISTS', P .. 'batch:' .. batch) == 0 then
    return -1
  end
  local wanted = {}
  for _, detector in ipairs(cjson.decode(args[2])) do
    detector = text(detector)
    wanted[detector] = true
    if redis.call('SADD', P .. 'expected:' .. batch, detector) == 1 then
      redis.call('SADD', P .. 'unsettled:' .. batch, detector)
      redis.call('SADD', P .. 'waiting:' .. batch, detector)
    end
  end
  for _, detector in ipairs(redis.call('SMEMBERS', P .. 'expected:' .. batch)) do
    if not wanted[detector] and redis.call('SREM', P .. 'waiting:' .. batch, detector) == 1 then
      redis.call('SREM', P .. 'expected:' .. batch, detector)
      redis.call('SREM', P .. 'unsettled:' .. batch, detector)
    end
  end
  schedule_gather(P, now, batch)
  return redis.call('SCARD', P .. 'expected:' .. batch)
end)

local function batch_state(P, batch)
  local f = fields(P, batch, 'spec', 'info', 'posted_ms', 'first_ms', 'last_ms', 'version', 'class', 'pool', 'gathering', 'changed')
  if not f[1] then
    return nil
  end
  local running, queued = {}, {}
  for _, detector in ipairs(redis.call('SMEMBERS', P .. 'unsettled:' .. batch)) do
    local job = job_of(batch, detector)
    local worker = redis.call('HGET', P .. 'lease:' .. job, 'worker')
    if worker then
      running[detector] = worker
    elseif redis.call('SISMEMBER', P .. 'waiting:' .. batch, detector) == 0 then
      queued[#queued + 1] = detector
    end
  end
  return {spec = f[1], info = f[2], posted_ms = tonumber(f[3]), first_ms = tonumber(f[4] or 0), last_ms = tonumber(f[5] or 0),
    version = tonumber(f[6]), class = f[7], pool = f[8], gathering = f[9] == '1', changed = f[10] == '1',
    expected = redis.call('SMEMBERS', P .. 'expected:' .. batch), waiting = redis.call('SMEMBERS', P .. 'waiting:' .. batch),
    finished = redis.call('SMEMBERS', P .. 'finished:' .. batch), running = running, queued = queued,
    reasons = redis.call('HGETALL', P .. 'reasons:' .. batch), metrics = redis.call('HGETALL', P .. 'metrics:' .. batch)}
end

-- state: ARGV batch
redis.register_function('rapid_v1_state', function(keys, args)
  local state = batch_state(keys[1], args[1])
  return state and cjson.encode(state) or ''
end)

-- claim_gather: ARGV gatherer, lease_ms. Returns a gather, or when the next one is due (ms; -1 if none is known).
redis.register_function('rapid_v1_claim_gather', function(keys, args)
  local P, now = keys[1], now_ms(keys[1])
  redis.call('DEL', P .. 'gather_wake')
  local due = redis.call('ZRANGEBYSCORE', P .. 'gathers', '-inf', text(now), 'WITHSCORES')
  local best, best_order, best_due
  for i = 1, #due, 2 do
    local f = fields(P, due[i], 'order', 'version', 'changed')
    if not f[1] or (tonumber(f[2]) > 0 and f[3] ~= '1') then
      redis.call('ZREM', P .. 'gathers', due[i]) -- expired, or nothing new to show
    elseif not best or tonumber(f[1]) > best_order then
      best, best_order, best_due = due[i], tonumber(f[1]), tonumber(due[i + 1])
    end
  end
  if not best then
    local first = redis.call('ZRANGE', P .. 'gathers', 0, 0, 'WITHSCORES')
    return cjson.encode({wait_ms = first[2] and math.max(tonumber(first[2]) - now, 1) or -1})
  end
  local token = redis.call('INCR', P .. 'fence')
  redis.call('ZREM', P .. 'gathers', best)
  redis.call('ZADD', P .. 'gather_leases', text(now + tonumber(args[2])), best)
  redis.call('HSET', P .. 'batch:' .. best, 'gathering', '1', 'changed', '0', 'gather_token', token)
  local state = batch_state(P, best)
  local reason = 'timeout'
  if state.version > 0 then
    reason = 'regather'
  elseif redis.call('SCARD', P .. 'unsettled:' .. best) == 0 then
    reason = 'complete'
  end
  return cjson.encode({batch = best, token = token, lease_ms = tonumber(args[2]), reason = reason, due_ms = best_due, state = state})
end)

-- renew_gather: ARGV batch, token, lease_ms
redis.register_function('rapid_v1_renew_gather', function(keys, args)
  local P, batch = keys[1], args[1]
  if redis.call('HGET', P .. 'batch:' .. batch, 'gather_token') ~= args[2]
    or redis.call('HGET', P .. 'batch:' .. batch, 'gathering') ~= '1' then
    return refused('lease_lost', batch)
  end
  redis.call('ZADD', P .. 'gather_leases', text(now_ms(P) + tonumber(args[3])), batch)
  return 1
end)

-- complete_gather: ARGV batch, token, data (JSON) for the event
redis.register_function('rapid_v1_complete_gather', function(keys, args)
  local P, now, batch = keys[1], now_ms(keys[1]), args[1]
  local f = fields(P, batch, 'gather_token', 'gathering', 'ttl_ms')
  if f[1] ~= args[2] or f[2] ~= '1' then
    count(P, 'refused')
    return refused('lease_lost', batch)
  end
  redis.call('ZREM', P .. 'gather_leases', batch)
  redis.call('HSET', P .. 'batch:' .. batch, 'gathering', '0')
  local version = redis.call('HINCRBY', P .. 'batch:' .. batch, 'version', 1)
  count(P, 'gathers')
  emit(P, now, 'summary_ready', batch, nil, args[3])
  touch(P, batch, f[3])
  schedule_gather(P, now, batch)
  return version
end)

-- fail_gather: ARGV batch, token, wait_ms, max_failures. Tries again later; gives up after max_failures.
redis.register_function('rapid_v1_fail_gather', function(keys, args)
  local P, now, batch = keys[1], now_ms(keys[1]), args[1]
  local f = fields(P, batch, 'gather_token', 'gathering')
  if f[1] ~= args[2] or f[2] ~= '1' then
    return refused('lease_lost', batch)
  end
  redis.call('ZREM', P .. 'gather_leases', batch)
  redis.call('HSET', P .. 'batch:' .. batch, 'gathering', '0', 'changed', '1')
  count(P, 'gathers_failed')
  if redis.call('HINCRBY', P .. 'batch:' .. batch, 'gather_failures', 1) >= tonumber(args[4]) then
    return 'dead'
  end
  gather_at(P, batch, now + tonumber(args[3]))
  return 'queued'
end)
