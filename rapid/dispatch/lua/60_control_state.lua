-- Control state ------------------------------------------------------------------------------
-- control_state is one document with its version; control_log says who changed what. Both are kept in the results
-- store too: the leading head writes them there and brings them back after a flush.

local CONTROL_LOG_KEPT = 500

local function put_control(c, version, state, by, reason, mode)
  redis.call('HSET', c.P .. 'control_state', 'version', version, 'state', state, 'changed_by', by,
    'changed_ms', c.now, 'reason', reason)
  if mode ~= c.mode then
    redis.call('HSET', c.P .. 'control', 'mode', mode)
    c.mode = mode
    -- The keeper hands out what the new mode allows: who may steer need not be able to touch jobs.
    set_timer(c, 'M', c.now)
  end
end

local function log_control(c, entries)
  for _, entry in ipairs(entries) do
    redis.call('LPUSH', c.P .. 'control_log', entry)
  end
  redis.call('LTRIM', c.P .. 'control_log', 0, CONTROL_LOG_KEPT - 1)
end

on_timer.M = function(c)
  serve_anew(c)
end

-- control_change: KEYS prefix, control_state. ARGV expected version, state (JSON), changed_by, reason, worker mode, log entry
-- (JSON without version and time), data of the event (JSON), '1' if it changes the pipeline of intra-/extra-focal pairs.
-- Returns what came of it (changed, version_changed, between_pair), the version and the board's time.
redis.register_function('rapid_v1_control_change', function(keys, args)
  local c = context(keys)
  local version = tonumber(redis.call('HGET', c.P .. 'control_state', 'version') or '0')
  if version ~= tonumber(args[1]) then
    return {'version_changed', version, c.now}
  end
  if args[8] == '1' and is_between_pair(c) then
    count(c, 'control_refused')
    return {'between_pair', version, c.now}
  end
  version = version + 1
  put_control(c, version, args[2], args[3], args[4], args[5])
  -- The entry's numbers are put in as text: decoding and encoding would turn empty objects into lists.
  log_control(c, {string.format('{"version":%d,"changed_ms":%.0f,', version, c.now) .. string.sub(args[6], 2)})
  emit(c, 'control_changed', nil, nil, string.format('{"version":%d,', version) .. string.sub(args[7], 2))
  count(c, 'control_changes')
  return {'changed', version, c.now}
end)

-- control_restore: KEYS prefix, control_state. ARGV expected version (-1: any), new version, state (JSON), changed_by, reason, worker mode,
-- data of the event, then log entries (JSON), oldest first; the log is replaced. Returns 1, or 0 if the version is another.
redis.register_function('rapid_v1_control_restore', function(keys, args)
  local c = context(keys)
  if args[1] ~= '-1' and tonumber(redis.call('HGET', c.P .. 'control_state', 'version') or '0') ~= tonumber(args[1]) then
    return 0
  end
  put_control(c, args[2], args[3], args[4], args[5], args[6])
  redis.call('DEL', c.P .. 'control_log')
  log_control(c, {unpack(args, 8)})
  emit(c, 'control_changed', nil, nil, args[7])
  return 1
end)

-- control_refused: a change was not valid. Counted, so that it shows.
redis.register_function('rapid_v1_control_refused', function(keys)
  count(context(keys), 'control_refused')
  return 1
end)
