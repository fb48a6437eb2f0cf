-- How much lies ahead of a new exposure ------------------------------------------------------

-- load: ARGV pool, pipeline. Returns workers that serve the pool, of these running current jobs, of these running backlog,
-- current jobs that wait, and what a job of the pipeline takes a worker, in ms, or '' if none has run yet.
redis.register_function('rapid_v1_load', function(keys, args)
  local c, pool = context(keys), args[1]
  local P, workers, current, backlog = c.P, 0, 0, 0
  for _, id in ipairs(redis.call('ZRANGE', P .. 'workers', 0, -1)) do
    local f = redis.call('HMGET', P .. 'worker:' .. id, 'pools', 'state', 'class')
    if f[1] and f[2] ~= 'silent' and string.find(',' .. f[1] .. ',', ',' .. pool .. ',', 1, true) then
      workers = workers + 1
      if f[2] == 'busy' and f[3] == 'current' then
        current = current + 1
      elseif f[2] == 'busy' then
        backlog = backlog + 1
      end
    end
  end
  local waiting = redis.call('ZCOUNT', P .. 'queue:' .. pool, first_current(c, pool), '+inf')
    + redis.call('ZCOUNT', P .. 'held:' .. pool, first_current(c, pool), '+inf')
  for _, detector in ipairs(redis.call('HKEYS', P .. 'pins:' .. pool)) do
    waiting = waiting + redis.call('ZCOUNT', P .. 'pinned:' .. pool .. ':' .. detector, first_current(c, pool), '+inf')
  end
  return {workers, current, backlog, waiting, redis.call('HGET', P .. 'costs', args[2]) or ''}
end)
