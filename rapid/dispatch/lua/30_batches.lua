-- Batches ---------------------------------------------------------------------------

local function list_of(json)
  local list = cjson.decode(json)
  for i, detector in ipairs(list) do
    list[i] = tostring(detector)
  end
  return list
end

-- Queue jobs of detectors whose raws have arrived. Returns started, queued.
local function queue_raws(c, batch, detectors, pool, score, grace_ms, score_of_detector)
  if #detectors == 0 then
    return 0, 0
  end
  age_from_now(c, batch)
  local started = place_all(c, batch, detectors, pool, score, grace_ms, score_of_detector)
  started = started + spread(c, pool)
  return started, #detectors - started
end

-- Raws have arrived for a batch that is on the board. Returns started, queued, unexpected.
local function arrive(c, batch, raws)
  local P = c.P
  local f = redis.call('HMGET', P .. 'batch:' .. batch, 'pool', 'forced', 'order', 'grace_ms', 'final')
  local unexpected, detectors, scores = {}, {}, {}
  for detector, uri in pairs(raws) do
    local is_new = false
    if redis.call('SISMEMBER', P .. 'expected:' .. batch, detector) == 0 then
      if f[5] == '1' then
        unexpected[#unexpected + 1] = tonumber(detector)
      else
        redis.call('SADD', P .. 'expected:' .. batch, detector)
        redis.call('SADD', P .. 'unsettled:' .. batch, detector)
        is_new = true
      end
    end
    local waited = redis.call('SREM', P .. 'waiting:' .. batch, detector) == 1
    local reason = redis.call('HGET', P .. 'reasons:' .. batch, detector)
    if reason and string.sub(reason, 1, 10) == 'superseded' then
      scores[detector] = f[3] * 2
    elseif reason and string.sub(reason, 1, 11) == 'quarantined' then
      -- A good copy came after a bad one.
      redis.call('HDEL', P .. 'reasons:' .. batch, detector)
      redis.call('SADD', P .. 'unsettled:' .. batch, detector)
      waited = true
    end
    if waited or is_new then
      redis.call('HSET', P .. 'raws:' .. batch, detector, uri)
      detectors[#detectors + 1] = detector
    end
  end
  local started, queued = queue_raws(c, batch, detectors, f[1], score_of(f[2], f[3]), tonumber(f[4]), scores)
  return started, queued, unexpected
end

-- The first post of a batch: as arrive, with a few commands for all detectors.
local function begin_batch(c, batch, facts, expected, raws, excluded, shed, finished)
  local P, wanted, scores, unexpected = c.P, {}, {}, {}
  local order_score = score_of(tostring(facts.forced), facts.order)
  for _, detector in ipairs(expected) do
    wanted[detector] = true
  end
  local function want(detector)
    if not wanted[detector] then
      wanted[detector] = true
      expected[#expected + 1] = detector
    end
  end
  for detector in pairs(finished) do
    want(detector)
  end
  for detector in pairs(raws) do
    if facts.final == 0 then
      want(detector)
    elseif not wanted[detector] then
      unexpected[#unexpected + 1] = tonumber(detector)
    end
  end
  local unsettled, waiting, queue, uris, reasons, done, metrics = {}, {}, {}, {}, {}, {}, {}
  for _, detector in ipairs(expected) do
    if finished[detector] then
      done[#done + 1] = detector
      table.insert(metrics, detector)
      table.insert(metrics, finished[detector])
    elseif excluded[detector] then
      table.insert(reasons, detector)
      table.insert(reasons, 'excluded|' .. excluded[detector])
    else
      if shed[detector] then
        -- Settled for the gather, and on the backlog all the same.
        table.insert(reasons, detector)
        table.insert(reasons, 'superseded|' .. shed[detector])
        scores[detector] = facts.order * 2
      else
        unsettled[#unsettled + 1] = detector
      end
      if raws[detector] then
        queue[#queue + 1] = detector
        table.insert(uris, detector)
        table.insert(uris, raws[detector])
      else
        waiting[#waiting + 1] = detector
      end
    end
  end
  call_many('SADD', P .. 'expected:' .. batch, expected)
  call_many('SADD', P .. 'unsettled:' .. batch, unsettled)
  call_many('SADD', P .. 'waiting:' .. batch, waiting)
  call_many('SADD', P .. 'finished:' .. batch, done)
  call_many('HSET', P .. 'metrics:' .. batch, metrics)
  call_many('HSET', P .. 'reasons:' .. batch, reasons)
  call_many('HSET', P .. 'raws:' .. batch, uris)
  if #done > 0 then
    redis.call('HSET', P .. 'batch:' .. batch, 'first_ms', c.now)
  end
  emit(c, 'exposure_posted', batch, nil, cjson.encode({expected = #expected, pool = facts.pool}))
  local started, queued = queue_raws(c, batch, queue, facts.pool, order_score, facts.grace_ms, scores)
  return started, queued, unexpected
end

-- post: ARGV batch, spec, info, facts (JSON), expected, raws, excluded, superseded, finished (JSON), lead token or ''.
-- Posting again adds what is new and repeats nothing.
redis.register_function('rapid_v1_post', function(keys, args)
  local c, batch = context(keys), args[1]
  local P, key = c.P, keys[1] .. 'batch:' .. args[1]
  if args[10] ~= '' then
    local leading = redis.call('HGET', P .. 'leader', 'token')
    if leading and tonumber(leading) > tonumber(args[10]) then
      return refused('not_leader', 'another head leads')
    end
  end
  local facts = cjson.decode(args[4])
  local created = redis.call('EXISTS', key) == 0
  if created then
    local order = facts.order
    if facts.forced == 0 and order >= newest_of(c, facts.pool) then
      redis.call('HSET', P .. 'control', 'newest:' .. facts.pool,
        string.format('%.0f|%.0f', order, c.now + NEWEST_TTL_MS))
      c.newest[facts.pool] = order
    end
    redis.call('HSET', key, 'spec', args[2], 'info', args[3], 'order', order, 'pool', facts.pool, 'forced', facts.forced,
      'backlog_age_ms', facts.backlog_age_ms,
      'posted_ms', c.now, 'gather_ms', facts.gather_ms, 'regather_ms', facts.regather_ms,
      'deadline_ms', c.now + facts.deadline_ms, 'max_attempts', facts.max_attempts, 'ttl_ms', facts.ttl_ms,
      'grace_ms', facts.grace_ms, 'backoff_ms', facts.backoff_ms, 'version', facts.version, 'gathered_n', facts.gathered_n,
      'gathering', 0, 'final', facts.final, 'choice', facts.choice)
    redis.call('SADD', P .. 'pools', facts.pool)
    redis.call('ZADD', P .. 'recent', c.now, batch)
    redis.call('ZREMRANGEBYRANK', P .. 'recent', 0, -1 - RECENT_KEPT)
    count(c, 'posted')
    note_pair(c, facts)
  elseif facts.final == 1 then
    redis.call('HSET', key, 'final', 1)
  end
  local expected, raws = list_of(args[5]), cjson.decode(args[6])
  local excluded, superseded = cjson.decode(args[7]), cjson.decode(args[8])
  local started, queued, unexpected
  if created then
    started, queued, unexpected =
      begin_batch(c, batch, facts, expected, raws, excluded, superseded, cjson.decode(args[9]))
  else
    -- Which detectors an exposure gets is decided once: a later choice, made under another control state, adds only
    -- what was not expected at all (I9).
    local same, added = redis.call('HGET', key, 'choice') == facts.choice, {}
    for _, detector in ipairs(expected) do
      if redis.call('SADD', P .. 'expected:' .. batch, detector) == 1 then
        redis.call('SADD', P .. 'unsettled:' .. batch, detector)
        redis.call('SADD', P .. 'waiting:' .. batch, detector)
        added[detector] = true
      end
    end
    for detector, reason in pairs(excluded) do
      if redis.call('SISMEMBER', P .. 'waiting:' .. batch, detector) == 1 then
        settle(c, batch, detector, 'excluded', reason)
      end
    end
    for detector, reason in pairs(superseded) do
      if (same or added[detector]) and redis.call('SISMEMBER', P .. 'waiting:' .. batch, detector) == 1 then
        redis.call('HSET', P .. 'reasons:' .. batch, detector, 'superseded|' .. reason)
        redis.call('SREM', P .. 'unsettled:' .. batch, detector)
      end
    end
    started, queued, unexpected = arrive(c, batch, raws)
  end
  touch(c, batch)
  schedule_gather(c, batch)
  local class = is_current(c, facts.pool, score_of(tostring(facts.forced), facts.order)) and 'current' or 'backlog'
  return {created and 1 or 0, started, queued, unexpected, class}
end)

-- arrive: ARGV batch, raws (JSON). Returns how many jobs were put on the board; -1 for an unknown batch.
redis.register_function('rapid_v1_arrive', function(keys, args)
  local c, batch = context(keys), args[1]
  if redis.call('EXISTS', c.P .. 'batch:' .. batch) == 0 then
    return -1
  end
  local started, queued = arrive(c, batch, cjson.decode(args[2]))
  touch(c, batch)
  return started + queued
end)

-- settle: ARGV batch, state (quarantined, excluded, superseded), reasons (JSON). Detectors that run or are settled
-- stay as they are. Returns how many were settled; -1 for an unknown batch.
redis.register_function('rapid_v1_settle', function(keys, args)
  local c, batch, settled = context(keys), args[1], 0
  local P = c.P
  local f = redis.call('HMGET', P .. 'batch:' .. batch, 'pool', 'order')
  if not f[1] then
    return -1
  end
  for detector, reason in pairs(cjson.decode(args[3])) do
    local job = job_of(batch, detector)
    local _, _, _, _, state = lease_of(c, batch, detector)
    if state ~= 'held' and redis.call('SISMEMBER', P .. 'unsettled:' .. batch, detector) == 1 then
      if args[2] == 'superseded' then
        if unqueue(c, job, f[1], detector) == 1 then
          place_all(c, batch, {detector}, f[1], f[2] * 2, 0)
        end
        redis.call('HSET', P .. 'reasons:' .. batch, detector, 'superseded|' .. reason)
        redis.call('SREM', P .. 'unsettled:' .. batch, detector)
      else
        unqueue(c, job, f[1], detector)
        clear_timer(c, 'R' .. job)
        settle(c, batch, detector, args[2], reason)
      end
      settled = settled + 1
    end
  end
  touch(c, batch)
  schedule_gather(c, batch)
  return settled
end)

-- expect: ARGV batch, expected (JSON list). The expected set became known, or is smaller than thought (partial
-- read-out). Detectors whose raw has arrived stay expected. Returns how many are; -1 for an unknown batch.
redis.register_function('rapid_v1_expect', function(keys, args)
  local c, batch, wanted = context(keys), args[1], {}
  local P = c.P
  if redis.call('EXISTS', P .. 'batch:' .. batch) == 0 then
    return -1
  end
  for _, detector in ipairs(list_of(args[2])) do
    wanted[detector] = true
    if redis.call('SADD', P .. 'expected:' .. batch, detector) == 1 then
      redis.call('SADD', P .. 'unsettled:' .. batch, detector)
      redis.call('SADD', P .. 'waiting:' .. batch, detector)
    end
  end
  for _, detector in ipairs(redis.call('SMEMBERS', P .. 'waiting:' .. batch)) do
    if not wanted[detector] then
      redis.call('SREM', P .. 'waiting:' .. batch, detector)
      redis.call('SREM', P .. 'expected:' .. batch, detector)
      redis.call('SREM', P .. 'unsettled:' .. batch, detector)
      redis.call('HDEL', P .. 'reasons:' .. batch, detector)
    end
  end
  redis.call('HSET', P .. 'batch:' .. batch, 'final', 1)
  touch(c, batch)
  schedule_gather(c, batch)
  return redis.call('SCARD', P .. 'expected:' .. batch)
end)

-- Unprocessed jobs leave the backlog: too old to be of use. Returns how many.
local function expire_backlog(c, batch)
  local P, expired = c.P, 0
  local pool = redis.call('HGET', P .. 'batch:' .. batch, 'pool')
  if not pool then
    return 0
  end
  for _, detector in ipairs(redis.call('SMEMBERS', P .. 'expected:' .. batch)) do
    local job = job_of(batch, detector)
    local queued = unqueue(c, job, pool, detector) + redis.call('ZREM', P .. 'timers', 'R' .. job)
    if queued > 0 then
      settle(c, batch, detector, 'superseded', 'left the backlog unprocessed: too old')
      expired = expired + 1
    end
  end
  if expired > 0 then
    count(c, 'expired', expired)
    schedule_gather(c, batch)
  end
  return expired
end

-- Forget a batch: all its keys at once.
local function forget(c, batch)
  local P = c.P
  expire_backlog(c, batch)
  for _, detector in ipairs(redis.call('HKEYS', P .. 'leases:' .. batch)) do
    local token, id, class, _, state = lease_of(c, batch, detector)
    if state == 'held' then
      end_lease(c, batch, detector, token, id, class, 'expired')
    end
  end
  redis.call('ZREM', P .. 'gathers', batch)
  redis.call('ZREM', P .. 'recent', batch)
  clear_timer(c, 'X' .. batch)
  clear_timer(c, 'H' .. batch)
  clear_timer(c, 'G' .. batch)
  for _, name in ipairs({'batch:', 'expected:', 'waiting:', 'unsettled:', 'finished:', 'reasons:', 'raws:', 'metrics:',
    'attempts:', 'leases:'}) do
    redis.call('DEL', P .. name .. batch)
  end
end
