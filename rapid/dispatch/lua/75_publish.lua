-- Publishing: one role at a time. In the server's own time, not the board's: readers outside know no replay's clock. -----

-- publish_lead: ARGV who, ttl_ms. Takes or keeps the right to publish. Returns whether it is the caller's, and ms it lasts.
redis.register_function('rapid_v1_publish_lead', function(keys, args)
  local P = keys[1]
  local holder = redis.call('GET', P .. 'publish_lead')
  if holder and holder ~= args[1] then
    return {0, math.max(redis.call('PTTL', P .. 'publish_lead'), 1)}
  end
  redis.call('SET', P .. 'publish_lead', args[1], 'PX', args[2])
  redis.call('DEL', P .. 'publish_lead_wake')
  return {1, tonumber(args[2])}
end)

-- publish_resign: ARGV who. Gives the right up, and wakes one that stands by.
redis.register_function('rapid_v1_publish_resign', function(keys, args)
  local P = keys[1]
  if redis.call('GET', P .. 'publish_lead') ~= args[1] then
    return 0
  end
  redis.call('DEL', P .. 'publish_lead')
  redis.call('LPUSH', P .. 'publish_lead_wake', '1')
  redis.call('PEXPIRE', P .. 'publish_lead_wake', 60000)
  return 1
end)
