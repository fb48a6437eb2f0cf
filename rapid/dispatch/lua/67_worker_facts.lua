-- What a person is told of workers -----------------------------------------------------------

-- tell_worker: ARGV worker, resident memory of it and its payload processes [MB]. Returns whether the board knows it.
redis.register_function('rapid_v1_tell_worker', function(keys, args)
  local key = keys[1] .. 'worker:' .. args[1]
  if redis.call('EXISTS', key) == 0 then
    return 0 -- gone meanwhile: a hash with this field alone would pass for a worker
  end
  redis.call('HSET', key, 'memory_mb', args[2])
  return 1
end)

-- worker_facts: no arguments. JSON: by worker, what `status` leaves out.
local function worker_facts(keys)
  local c = context(keys)
  local P, found = c.P, {}
  local pools = redis.call('SMEMBERS', P .. 'pools')
  for _, id in ipairs(redis.call('ZRANGE', P .. 'workers', 0, -1)) do
    local f = redis.call('HMGET', P .. 'worker:' .. id, 'jobs', 'memory_mb', 'pinned')
    local facts = {is_restarting = redis.call('EXISTS', P .. 'restart:' .. id) == 1, memory_mb = tonumber(f[2] or ''), n_own = 0}
    local first = string.match(f[1] or '', '%S+')
    if first then
      local batch, detector = split_job(first)
      local _, _, _, since = lease_of(c, batch, detector)
      facts.since_ms = tonumber(since or '')
    end
    for _, pool in ipairs(pools) do
      facts.n_own = facts.n_own + redis.call('ZCARD', P .. 'own:' .. pool .. ':' .. id)
      for detector in string.gmatch(f[3] or '', '%d+') do
        facts.n_own = facts.n_own + redis.call('ZCARD', P .. 'pinned:' .. pool .. ':' .. detector)
      end
    end
    found[id] = facts
  end
  return next(found) and cjson.encode(found) or '{}'
end
redis.register_function{function_name = 'rapid_v1_worker_facts', callback = worker_facts, flags = {'no-writes'}}
