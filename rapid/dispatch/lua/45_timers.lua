-- Timers ----------------------------------------------------------------------------

local on_timer = {
  L = function(c, job)
    local batch, detector = split_job(job)
    local token, id, _, _, state = lease_of(c, batch, detector)
    if state == 'held' then
      count(c, 'leases_lost')
      take_back(c, id, job, 'counted', 'expired', error_of('lease_expired', 'worker ' .. id .. ' gave no sign of life', id))
      if redis.call('ZSCORE', c.P .. 'workers', id) then
        redis.call('HSET', c.P .. 'worker:' .. id, 'state', 'silent')
      end
    end
  end,
  R = function(c, job)
    local batch, detector = split_job(job)
    local f = redis.call('HMGET', c.P .. 'batch:' .. batch, 'pool', 'forced', 'order', 'grace_ms')
    if f[1] then
      place_all(c, batch, {detector}, f[1], score_of(f[2], f[3]), tonumber(f[4]))
      c.touched = f[1]
    end
  end,
  H = function(c, batch)
    local f = redis.call('HMGET', c.P .. 'batch:' .. batch, 'pool', 'order')
    if f[1] then
      local held, queue = c.P .. 'held:' .. f[1], {}
      local entries = redis.call('ZRANGEBYSCORE', held, f[2] * 2, f[2] * 2 + 1, 'WITHSCORES')
      for i = 1, #entries, 2 do
        if string.sub(entries[i], 1, #batch + 1) == batch .. '.' then
          redis.call('ZREM', held, entries[i])
          table.insert(queue, entries[i + 1])
          table.insert(queue, entries[i])
        end
      end
      call_many('ZADD', c.P .. 'queue:' .. f[1], queue)
      c.touched = f[1]
    end
  end,
  G = function(c, batch)
    if redis.call('HGET', c.P .. 'batch:' .. batch, 'gathering') == '1' then
      return_gather(c, batch, error_of('lease_expired', 'its gatherer gave no sign of life'), 0, GATHER_FAILURES)
    end
  end,
  X = expire_backlog,
  B = function(c, batch)
    -- What still waits for a worker is remembered until it leaves the backlog.
    local leaves_ms = redis.call('ZSCORE', c.P .. 'timers', 'X' .. batch)
    if leaves_ms and (redis.call('SCARD', c.P .. 'unsettled:' .. batch) > 0 or awaits_more(c, batch)) then
      local ttl_ms = redis.call('HGET', c.P .. 'batch:' .. batch, 'ttl_ms')
      redis.call('ZADD', c.P .. 'timers', leaves_ms + ttl_ms, 'B' .. batch)
    else
      forget(c, batch)
    end
  end,
  D = function(c, letter)
    redis.call('DEL', c.P .. 'dead:' .. letter)
    redis.call('ZREM', c.P .. 'dead', letter)
  end,
  W = function(c, id)
    local f = redis.call('HMGET', c.P .. 'worker:' .. id, 'seen_ms', 'lease_ms')
    local timeout_ms = f[1] and (c.worker_timeout_ms or LEASES_TO_LEAVE * lease_time(c, f[2]))
    if not f[1] then
      redis.call('ZREM', c.P .. 'workers', id)
    elseif f[1] + timeout_ms <= c.now then
      count(c, 'workers_lost')
      remove_worker(c, id, 'counted', 'lease_expired', 'worker ' .. id .. ' gave no sign of life')
    else
      set_timer(c, 'W' .. id, f[1] + timeout_ms)
    end
  end,
}

-- Run the timers that are due. Returns ms until the next one; 0 if more are due, nil if there is none.
local function run_timers(c)
  local pools = {}
  for _, timer in ipairs(redis.call('ZRANGEBYSCORE', c.P .. 'timers', '-inf', c.now, 'LIMIT', 0, TIMERS_PER_TICK)) do
    redis.call('ZREM', c.P .. 'timers', timer)
    on_timer[string.sub(timer, 1, 1)](c, string.sub(timer, 2))
    if c.touched then
      pools[c.touched], c.touched = true, nil
    end
  end
  for pool, _ in pairs(pools) do
    spread(c, pool)
  end
  local first = redis.call('ZRANGE', c.P .. 'timers', 0, 0, 'WITHSCORES')
  return first[2] and math.max(first[2] - c.now, 0)
end

-- tick: ARGV worker_timeout_ms or ''. Returns ms until the next timer; 0 if more are due, -1 if there is none.
redis.register_function('rapid_v1_tick', function(keys, args)
  local c = context(keys)
  c.worker_timeout_ms = tonumber(args[1])
  redis.call('DEL', c.P .. 'keeper_wake')
  local wait_ms = run_timers(c)
  return wait_ms and real_ms(c, wait_ms) or -1
end)

-- claim_gather: ARGV gatherer, lease_ms. Returns a gather, or how long until the next gather or
-- timer is due (-1: none known). Whoever waits for gathers keeps the timers too.
redis.register_function('rapid_v1_claim_gather', function(keys, args)
  local c = context(keys)
  local P, best, best_order, best_due = c.P, nil, nil, nil
  redis.call('DEL', P .. 'gather_wake', P .. 'keeper_wake')
  local timer_ms = run_timers(c)
  local due = redis.call('ZRANGEBYSCORE', P .. 'gathers', '-inf', c.now, 'WITHSCORES')
  for i = 1, #due, 2 do
    local order = tonumber(redis.call('HGET', P .. 'batch:' .. due[i], 'order') or '')
    if not order then
      redis.call('ZREM', P .. 'gathers', due[i])
    elseif not best or order > best_order then
      best, best_order, best_due = due[i], order, tonumber(due[i + 1])
    end
  end
  if best then
    redis.call('ZREM', P .. 'gathers', best)
  end
  local first = redis.call('ZRANGE', P .. 'gathers', 0, 0, 'WITHSCORES')
  if not best then
    local wait_ms = math.min(first[2] and first[2] - c.now or math.huge, timer_ms or math.huge)
    return {wait_ms < math.huge and real_ms(c, math.max(wait_ms, 1)) or -1}
  end
  wake(c, 'gather_wake') -- another waiting gatherer takes over waiting for what is left
  local token = next_tokens(c, 1)[1]
  set_timer(c, 'G' .. best, c.now + lease_time(c, args[2]))
  local key = P .. 'batch:' .. best
  redis.call('HSET', key, 'gathering', 1, 'gather_token', token, 'gather_n', redis.call('SCARD', P .. 'finished:' .. best))
  local state = state_of(c, best)
  local reason = 'timeout'
  if state[2][7] ~= '0' then
    reason = 'regather'
  elseif is_complete(c, best, state[2][9]) then
    reason = 'complete'
  end
  return {0, token, reason, best_due, state, real_lease_ms(c, args[2])}
end)

-- claim: ARGV worker, boot, pools, pinned, host, lease_ms, how many jobs at most. A worker that asks holds nothing, or did not
-- hear the answer: then it gets its job again. Another boot is another process under the same name. Returns a message of
-- jobs, or how long to wait for one before it asks again (ms).
redis.register_function('rapid_v1_claim', function(keys, args)
  local c, id = context(keys), args[1]
  local P, key = c.P, keys[1] .. 'worker:' .. args[1]
  local was = redis.call('HMGET', key, 'boot', 'pools', 'pinned')
  local joins = not was[1] or not redis.call('ZSCORE', P .. 'workers', id)
  if was[1] and (was[1] ~= args[2] or was[2] ~= args[3] or was[3] ~= args[4]) then
    remove_worker(c, id, was[1] == args[2] and 'free' or 'counted', 'worker_restarted', 'worker ' .. id .. ' started anew')
    joins = true
  end
  redis.call('HSET', key, 'boot', args[2], 'pools', args[3], 'pinned', args[4], 'host', args[5], 'lease_ms', args[6],
    'limit', args[7], 'seen_ms', c.now)
  redis.call('ZADD', P .. 'workers', c.now, id)
  local worker = worker_of(c, id)
  if joins then
    set_timer(c, 'W' .. id, c.now + LEASES_TO_LEAVE * lease_time(c, args[6]))
    pin(c, worker)
    emit(c, 'worker_joined', nil, nil, cjson.encode({worker = id, host = args[5]}))
  end
  redis.call('DEL', P .. 'wake:' .. id)
  local limit = tonumber(args[7])
  local message = held_message(c, worker) or choose(c, worker, limit)
  if not message then
    -- Nothing to do: run what is due, in case no keeper does. Not parked meanwhile, so that it is handed nothing.
    unpark(c, worker)
    redis.call('HSET', key, 'state', 'idle', 'jobs', '')
    run_timers(c)
    message = choose(c, worker, limit)
  end
  if message then
    unpark(c, worker)
    return message
  end
  redis.call('HSET', key, 'state', 'parked')
  if not worker.pinned then
    for _, pool in ipairs(worker.pools) do
      redis.call('ZADD', P .. 'parked:' .. pool, 'NX', c.now, id)
    end
  end
  return math.max(math.floor(real_lease_ms(c, args[6]) / 2), 1) -- asking again by then is its sign of life
end)

