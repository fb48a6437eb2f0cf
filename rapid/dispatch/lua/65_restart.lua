-- Restarting workers -------------------------------------------------------------------------

-- restart_workers: ARGV pool, or '' for all; and if given one worker alone. Returns how many workers were told.
redis.register_function('rapid_v1_restart_workers', function(keys, args)
  local c, told = context(keys), 0
  local P = c.P
  for _, id in ipairs(redis.call('ZRANGE', P .. 'workers', 0, -1)) do
    local pools = redis.call('HGET', P .. 'worker:' .. id, 'pools')
    local serves = pools and (args[1] == '' or string.find(',' .. pools .. ',', ',' .. args[1] .. ',', 1, true))
    if serves and (not args[2] or args[2] == id) then
      redis.call('DEL', P .. 'restart:' .. id)
      redis.call('LPUSH', P .. 'restart:' .. id, '1')
      redis.call('PEXPIRE', P .. 'restart:' .. id, WAKE_TTL_MS)
      told = told + 1
    end
  end
  count(c, 'restarts_ordered', told)
  return told
end)
