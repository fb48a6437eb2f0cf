-- Leading, control, dead letters, looking ------------------------------------------------

-- lead: ARGV head, ttl_ms. Takes or keeps the lead. Returns token (0 if another leads) and ms it lasts.
redis.register_function('rapid_v1_lead', function(keys, args)
  local c = context(keys)
  local key = c.P .. 'leader'
  local f = redis.call('HMGET', key, 'id', 'token', 'until_ms')
  local is_free = not f[1] or tonumber(f[3]) <= c.now
  if not is_free and f[1] ~= args[1] then
    return {0, real_ms(c, math.max(f[3] - c.now, 1))}
  end
  local token = is_free and next_tokens(c, 1)[1] or f[2]
  redis.call('HSET', key, 'id', args[1], 'token', token, 'until_ms', c.now + lease_time(c, args[2]))
  redis.call('DEL', c.P .. 'leader_wake')
  return {token, real_lease_ms(c, args[2])}
end)

-- resign: ARGV head, token
redis.register_function('rapid_v1_resign', function(keys, args)
  local c = context(keys)
  local f = redis.call('HMGET', c.P .. 'leader', 'id', 'token')
  if f[1] ~= args[1] or f[2] ~= args[2] then
    return 0
  end
  redis.call('HSET', c.P .. 'leader', 'until_ms', 0)
  wake(c, 'leader_wake')
  return 1
end)

local function serve_all(c)
  for _, pool in ipairs(redis.call('SMEMBERS', c.P .. 'pools')) do
    spread(c, pool)
  end
end

-- Hand out what the worker mode now allows. What waits in a worker's own queue is offered to it anew.
local function serve_anew(c)
  serve_all(c)
  if c.mode ~= 'waiting' then
    -- Pinned workers and those with jobs of their own wait in no queue that is spread: let them ask again.
    for _, id in ipairs(redis.call('ZRANGE', c.P .. 'workers', 0, -1)) do
      if redis.call('HGET', c.P .. 'worker:' .. id, 'state') == 'parked' and redis.call('EXISTS', c.P .. 'wake:' .. id) == 0 then
        hand_over(c, id, '')
      end
    end
  end
end

-- mode: ARGV mode.
redis.register_function('rapid_v1_mode', function(keys, args)
  local c = context(keys)
  redis.call('HSET', c.P .. 'control', 'mode', args[1])
  c.mode = args[1]
  emit(c, 'control_changed', nil, nil, cjson.encode({mode = args[1]}))
  serve_anew(c)
  return args[1]
end)

local function wake_all(c)
  wake(c, 'keeper_wake')
  wake(c, 'gather_wake')
  wake(c, 'leader_wake')
end

-- clock: ARGV delta_ms. Moves the board's clock forward: replays and tests pass idle time so.
redis.register_function('rapid_v1_clock', function(keys, args)
  local frozen = redis.call('HEXISTS', keys[1] .. 'control', 'clock_at') == 1
  redis.call('HINCRBY', keys[1] .. 'control', frozen and 'clock_at' or 'clock_offset', args[1])
  local c = context(keys)
  wake_all(c)
  return c.now
end)

-- freeze_clock: from now on only clock() moves the board's clock: replays and tests go step by step.
redis.register_function('rapid_v1_freeze_clock', function(keys)
  local c = context(keys)
  redis.call('HSET', c.P .. 'control', 'clock_at', c.now)
  return c.now
end)

-- clock_rate: ARGV rate. How fast the board's clock runs: 10 for a night played ten times as fast, 0 to stop it. What is
-- left of a lease stays as long for the process that holds it: with its next sign of life it is told the new length.
redis.register_function('rapid_v1_clock_rate', function(keys, args)
  local c, rate = context(keys), tonumber(args[1])
  local key = c.P .. 'control'
  if rate == 0 then
    redis.call('HSET', key, 'clock_at', c.now)
    return c.now
  end
  redis.call('HDEL', key, 'clock_at')
  redis.call('HSET', key, 'clock_rate', args[1], 'clock_since', c.server_ms,
    'clock_zero', c.now - (tonumber(c.control.clock_offset or '') or 0))
  if rate > c.rate then
    local factor = rate / c.rate
    local timers = redis.call('ZRANGE', c.P .. 'timers', 0, -1, 'WITHSCORES')
    for i = 1, #timers, 2 do
      if string.find(timers[i], '^[LGW]') and timers[i + 1] + 0 > c.now then
        redis.call('ZADD', c.P .. 'timers', c.now + math.ceil((timers[i + 1] - c.now) * factor), timers[i])
      end
    end
    local until_ms = tonumber(redis.call('HGET', c.P .. 'leader', 'until_ms') or '0')
    if until_ms > c.now then
      redis.call('HSET', c.P .. 'leader', 'until_ms', c.now + math.ceil((until_ms - c.now) * factor))
    end
  end
  wake_all(c)
  return c.now
end)

-- time: the board's time (ms), and how fast it runs; 0 if it stands.
redis.register_function('rapid_v1_time', function(keys)
  local c = context(keys)
  return {c.now, c.control.clock_at and '0' or tostring(c.rate)}
end)

-- retry_dead: ARGV letter. Queues its job again, attempts counted anew.
redis.register_function('rapid_v1_retry_dead', function(keys, args)
  local c, letter = context(keys), args[1]
  local P = c.P
  local f = redis.call('HMGET', P .. 'dead:' .. letter, 'batch', 'detector')
  if not f[1] then
    return refused('not_found', letter)
  end
  local batch, detector = f[1], f[2]
  local b = redis.call('HMGET', P .. 'batch:' .. batch, 'pool', 'forced', 'order', 'version')
  if not b[1] then
    return refused('expired', letter)
  end
  redis.call('DEL', P .. 'dead:' .. letter)
  redis.call('ZREM', P .. 'dead', letter)
  count(c, 'dead_letters_retried')
  if detector == '' then
    redis.call('HSET', P .. 'batch:' .. batch, 'gather_failures', 0)
    gather_at(c, batch, c.now)
    return 1
  end
  redis.call('HSET', P .. 'attempts:' .. batch, detector, 0)
  redis.call('HDEL', P .. 'reasons:' .. batch, detector)
  redis.call('SADD', P .. 'unsettled:' .. batch, detector)
  age_from_now(c, batch)
  place_all(c, batch, {detector}, b[1], score_of(b[2], b[3]), 0)
  spread(c, b[1])
  touch(c, batch)
  if b[4] == '0' then
    schedule_gather(c, batch)
  end
  return 1
end)

-- discard_dead: ARGV letter. The detector stays failed.
redis.register_function('rapid_v1_discard_dead', function(keys, args)
  redis.call('DEL', keys[1] .. 'dead:' .. args[1])
  return redis.call('ZREM', keys[1] .. 'dead', args[1])
end)

-- dead: ARGV n. Newest first.
redis.register_function('rapid_v1_dead', function(keys, args)
  local P, letters = keys[1], {}
  for _, letter in ipairs(redis.call('ZREVRANGE', P .. 'dead', 0, args[1] - 1)) do
    local f = redis.call('HMGET', P .. 'dead:' .. letter, 'error', 'attempts', 'at_ms', 'raw_uri', 'spec')
    if f[1] then
      letters[#letters + 1] = {letter, unpack(f)}
    end
  end
  return letters
end)

-- status: no arguments. JSON.
redis.register_function('rapid_v1_status', function(keys)
  local c = context(keys)
  local P, queues, workers, counters = c.P, {}, {}, {}
  for _, pool in ipairs(redis.call('SMEMBERS', P .. 'pools')) do
    local names, current, total, oldest = {'queue:' .. pool, 'held:' .. pool}, 0, 0, nil
    local flat = redis.call('HKEYS', P .. 'pins:' .. pool)
    for _, detector in ipairs(flat) do
      names[#names + 1] = 'pinned:' .. pool .. ':' .. detector
    end
    for _, name in ipairs(names) do
      total = total + redis.call('ZCARD', P .. name)
      current = current + redis.call('ZCOUNT', P .. name, first_current(c, pool), '+inf')
      local last = redis.call('ZRANGE', P .. name, 0, 0, 'WITHSCORES')
      if last[2] and (not oldest or tonumber(last[2]) < oldest) then
        oldest = tonumber(last[2])
      end
    end
    queues[#queues + 1] = {pool = pool, current = current, backlog = total - current,
      oldest = oldest and math.floor(oldest / 2)}
  end
  for _, id in ipairs(redis.call('ZRANGE', P .. 'workers', 0, -1)) do
    local f = redis.call('HMGET', P .. 'worker:' .. id, 'state', 'jobs', 'seen_ms', 'pools', 'host', 'pinned')
    workers[#workers + 1] = {worker_id = id, state = f[1] or 'idle', jobs = f[2] or '', seen_ms = tonumber(f[3] or '0'),
      pools = f[4] or '', host = f[5] or '', pinned = f[6] or ''}
  end
  local flat = redis.call('HGETALL', P .. 'counters')
  for i = 1, #flat, 2 do
    counters[flat[i]] = tonumber(flat[i + 1])
  end
  local timers = {L = 0, R = 0, G = 0}
  for _, timer in ipairs(redis.call('ZRANGE', P .. 'timers', 0, -1)) do
    local letter = string.sub(timer, 1, 1)
    if timers[letter] then
      timers[letter] = timers[letter] + 1
    end
  end
  local leader = redis.call('HMGET', P .. 'leader', 'id', 'until_ms')
  local leads = leader[1] and tonumber(leader[2]) > c.now
  return cjson.encode({now_ms = c.now, mode = c.mode, queues = queues, workers = workers, counters = counters,
    running = timers.L, delayed = timers.R, gathers_running = timers.G,
    gathers_due = redis.call('ZCARD', P .. 'gathers'), dead_letters = redis.call('ZCARD', P .. 'dead'),
    leader = leads and leader[1] or '', leader_until_ms = leads and tonumber(leader[2]) or 0})
end)

-- publish: ARGV kind, batch, detector, data (JSON)
redis.register_function('rapid_v1_publish', function(keys, args)
  emit(context(keys), args[1], args[2], args[3], args[4])
  return 1
end)

-- now: board time, ms.
redis.register_function('rapid_v1_now', function(keys)
  return context(keys).now
end)
