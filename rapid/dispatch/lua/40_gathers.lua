-- Gathers ---------------------------------------------------------------------------

-- One consistent reading of a batch. Lists of detectors, hashes flat; the Python side gives them names.
local function state_of(c, batch)
  local P = c.P
  local f = redis.call('HMGET', P .. 'batch:' .. batch, 'spec', 'info', 'pool', 'posted_ms', 'first_ms', 'last_ms', 'version',
    'gathering', 'final', 'gathered_n', 'order', 'forced')
  if not f[1] then
    return nil
  end
  local running, last_ms = {}, tonumber(f[5] or '0')
  local leases = redis.call('HGETALL', P .. 'leases:' .. batch)
  for i = 1, #leases, 2 do
    local since, state = string.match(leases[i + 1], '|(%d+)|(%a+)$')
    if state == 'held' then
      running[#running + 1] = leases[i]
    elseif (state == 'done' or state == 'failed') and tonumber(since) > last_ms then
      last_ms = tonumber(since)
    end
  end
  for i = 1, #f do
    f[i] = f[i] or ''
  end
  f[6] = f[5] ~= '' and string.format('%.0f', last_ms) or ''
  f[#f + 1] = is_current(c, f[3], score_of(f[12], f[11])) and 'current' or 'backlog'
  return {batch, f, redis.call('SMEMBERS', P .. 'expected:' .. batch), redis.call('SMEMBERS', P .. 'waiting:' .. batch), running,
    redis.call('SMEMBERS', P .. 'finished:' .. batch), redis.call('HGETALL', P .. 'reasons:' .. batch),
    redis.call('HGETALL', P .. 'metrics:' .. batch)}
end

-- state: ARGV batch. Empty list if unknown.
redis.register_function('rapid_v1_state', function(keys, args)
  return state_of(context(keys), args[1]) or {}
end)

-- batches: ARGV n. Ids of the batches posted last, newest first.
redis.register_function('rapid_v1_batches', function(keys, args)
  return redis.call('ZREVRANGE', keys[1] .. 'recent', 0, args[1] - 1)
end)

local function gather_held(c, batch, token)
  local f = redis.call('HMGET', c.P .. 'batch:' .. batch, 'gather_token', 'gathering')
  return f[1] == token and f[2] == '1'
end

-- renew_gather: ARGV batch, token, lease_ms as its gatherer was told
redis.register_function('rapid_v1_renew_gather', function(keys, args)
  local c = context(keys)
  if not gather_held(c, args[1], args[2]) then
    count(c, 'refused')
    return refused('lease_lost', 'gather of ' .. args[1])
  end
  redis.call('ZADD', c.P .. 'timers', c.now + args[3] * c.rate, 'G' .. args[1])
  return 1
end)

-- complete_gather: ARGV batch, token, data (JSON) for the event. Returns the version.
redis.register_function('rapid_v1_complete_gather', function(keys, args)
  local c, batch = context(keys), args[1]
  local key = c.P .. 'batch:' .. batch
  if not gather_held(c, batch, args[2]) then
    local f = redis.call('HMGET', key, 'gather_done', 'version')
    if f[1] == args[2] then
      return tonumber(f[2]) -- said before; the answer was lost
    end
    count(c, 'refused')
    return refused('lease_lost', 'gather of ' .. batch)
  end
  clear_timer(c, 'G' .. batch)
  redis.call('HSET', key, 'gathering', 0, 'gather_done', args[2], 'gathered_n', redis.call('HGET', key, 'gather_n'), 'gather_failures', 0)
  redis.call('HDEL', key, 'regather_at')
  local version = redis.call('HINCRBY', key, 'version', 1)
  count(c, 'gathers')
  emit(c, 'summary_ready', batch, nil, args[3])
  touch(c, batch)
  schedule_gather(c, batch)
  return version
end)

local function return_gather(c, batch, error_json, wait_ms, max_failures)
  local key = c.P .. 'batch:' .. batch
  clear_timer(c, 'G' .. batch)
  redis.call('HSET', key, 'gathering', 0)
  local failures = redis.call('HINCRBY', key, 'gather_failures', 1)
  count(c, 'gathers_failed')
  if failures >= max_failures then
    bury(c, batch .. '.gather', batch, '', error_json, failures, '', redis.call('HGET', key, 'spec'))
    return 'dead'
  end
  if wait_ms > 0 then
    gather_at(c, batch, c.now + wait_ms * failures * failures)
  else
    schedule_gather(c, batch)
  end
  return 'queued'
end

-- fail_gather: ARGV batch, token, error (JSON), wait_ms, max_failures. Waits longer after each failure.
redis.register_function('rapid_v1_fail_gather', function(keys, args)
  local c = context(keys)
  if not gather_held(c, args[1], args[2]) then
    count(c, 'refused')
    return refused('lease_lost', 'gather of ' .. args[1])
  end
  return return_gather(c, args[1], args[3], args[4] + 0, args[5] + 0)
end)
