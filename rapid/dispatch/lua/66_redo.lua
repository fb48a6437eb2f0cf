-- Redo ------------------------------------------------------------------------------

-- redo: ARGV batch, raws (JSON: detector, URI). Detectors that have ended run again, as backlog, under new leases; all
-- others of the batch stay as they are, and one new summary follows. Nothing is done while a gather of the batch runs,
-- which would take the old results for the new ones. Returns how many were queued; -1 for an unknown batch, -2 for one
-- that is being gathered.
redis.register_function('rapid_v1_redo', function(keys, args)
  local c, batch = context(keys), args[1]
  local P = c.P
  local f = redis.call('HMGET', P .. 'batch:' .. batch, 'pool', 'order', 'gathering', 'version')
  if not f[1] then
    return -1
  end
  if f[3] == '1' then
    return -2
  end
  local detectors = {}
  for detector, uri in pairs(cjson.decode(args[2])) do
    local reason = redis.call('HGET', P .. 'reasons:' .. batch, detector)
    -- Ended without a result, and in no queue: failed, taken off by who had asked for it, or too old for the backlog.
    local has_failed = reason and (string.sub(reason, 1, 6) == 'failed' or string.sub(reason, 1, 8) == 'excluded'
      or string.sub(reason, 1, 27) == 'superseded|left the backlog')
    if has_failed or redis.call('SISMEMBER', P .. 'finished:' .. batch, detector) == 1 then
      redis.call('SREM', P .. 'finished:' .. batch, detector)
      redis.call('HDEL', P .. 'metrics:' .. batch, detector)
      redis.call('HDEL', P .. 'reasons:' .. batch, detector)
      redis.call('HDEL', P .. 'attempts:' .. batch, detector)
      redis.call('DEL', P .. 'dead:' .. job_of(batch, detector))
      redis.call('ZREM', P .. 'dead', job_of(batch, detector))
      -- What a worker that was given the job before still says is refused.
      redis.call('HDEL', P .. 'leases:' .. batch, detector)
      redis.call('HSET', P .. 'raws:' .. batch, detector, uri)
      redis.call('SADD', P .. 'unsettled:' .. batch, detector)
      detectors[#detectors + 1] = detector
    end
  end
  if #detectors > 0 then
    -- The finished set will be as large as it was: its size alone would not tell that the picture has changed.
    redis.call('HSET', P .. 'batch:' .. batch, 'gathered_n', -1)
    redis.call('HDEL', P .. 'batch:' .. batch, 'regather_at')
    age_from_now(c, batch)
    place_all(c, batch, detectors, f[1], f[2] * 2, 0)
    spread(c, f[1])
    count(c, 'redone', #detectors)
    schedule_gather(c, batch)
  end
  touch(c, batch)
  return #detectors
end)
