-- Requests -----------------------------------------------------------------------------------
-- requests is the inbox: anyone adds to it, the leading head reads it as the group "head". What became of a request is
-- one document, request:ID; its changes are a stream, request_log:ID, that waiters block on; its answer is a list of one
-- element, answer:ID, for whoever has no more than a command line. A ticket is the id of a repeated post.

local REQUEST_LOG_KEPT = 200
local REQUESTS_KEPT = 5000
local REFUSED_KEPT = 500
local TAKEN_PER_CALL = 200

local function is_led_by(c, token)
  local leading = redis.call('HGET', c.P .. 'leader', 'token')
  return not leading or tonumber(leading) <= tonumber(token)
end

local function log_change(c, id, change, keep_ms)
  redis.call('XADD', c.P .. 'request_log:' .. id, 'MAXLEN', '~', REQUEST_LOG_KEPT, '*', 'change', change)
  redis.call('PEXPIRE', c.P .. 'request_log:' .. id, keep_ms)
end

local function put_answer(c, id, document, keep_ms)
  redis.call('DEL', c.P .. 'answer:' .. id)
  redis.call('RPUSH', c.P .. 'answer:' .. id, document)
  redis.call('PEXPIRE', c.P .. 'answer:' .. id, keep_ms)
end

local function leave_inbox(c, ids)
  for _, id in ipairs(ids) do
    redis.call('XACK', c.P .. 'requests', 'head', id)
    redis.call('XDEL', c.P .. 'requests', id)
  end
end

-- request_put: KEYS prefix, inbox. ARGV lead token, id, document, change (JSON), keep_ms, how it ended ('', 'final', 'refused'),
-- counter to add to or '', tickets (separated by spaces), posts that are dealt with (likewise). Returns the board's time.
redis.register_function('rapid_v1_request_put', function(keys, args)
  local c, id, document, change, keep_ms, ended = context(keys), args[2], args[3], args[4], args[5], args[6]
  local P = c.P
  if not is_led_by(c, args[1]) then
    return refused('not_leader', 'another head leads')
  end
  redis.call('SET', P .. 'request:' .. id, document, 'PX', keep_ms)
  log_change(c, id, change, keep_ms)
  if ended == 'refused' then
    redis.call('LPUSH', P .. 'requests_refused', id)
    redis.call('LTRIM', P .. 'requests_refused', 0, REFUSED_KEPT - 1)
  else
    redis.call('ZADD', P .. 'requests_recent', 'NX', c.now, id)
    redis.call('ZREMRANGEBYRANK', P .. 'requests_recent', 0, -1 - REQUESTS_KEPT)
  end
  local tickets = words(args[8])
  for _, ticket in ipairs(tickets) do
    log_change(c, ticket, change, keep_ms)
  end
  if ended ~= '' then
    redis.call('SREM', P .. 'requests_open', id)
    put_answer(c, id, document, keep_ms)
    for _, ticket in ipairs(tickets) do
      put_answer(c, ticket, document, keep_ms)
    end
  else
    redis.call('SADD', P .. 'requests_open', id)
  end
  if args[7] ~= '' then
    count(c, args[7])
  end
  leave_inbox(c, words(args[9]))
  emit(c, 'request_changed', nil, nil, change)
  return c.now
end)

-- request_repeat: KEYS prefix, inbox. ARGV lead token, ticket, id it repeats, pointer document, change (JSON), keep_ms, the answer or ''.
redis.register_function('rapid_v1_request_repeat', function(keys, args)
  local c = context(keys)
  if not is_led_by(c, args[1]) then
    return refused('not_leader', 'another head leads')
  end
  redis.call('SET', c.P .. 'request:' .. args[2], args[4], 'PX', args[6])
  log_change(c, args[2], args[5], args[6])
  if args[7] ~= '' then
    put_answer(c, args[2], args[7], args[6])
  end
  count(c, 'requests_repeated')
  leave_inbox(c, {args[2]})
  return c.now
end)

-- request_done: KEYS prefix, inbox. ARGV posts that need no answer: cancellations.
redis.register_function('rapid_v1_request_done', function(keys, args)
  leave_inbox(context(keys), args)
  return 1
end)

-- request_take: KEYS prefix, inbox, a list that a script pushes to. ARGV door, kind. Moves what is in the list into the inbox, oldest
-- push first, in one step: nothing is lost in between, and nothing is taken twice. Returns how many.
redis.register_function('rapid_v1_request_take', function(keys, args)
  local c, taken = context(keys), 0
  while taken < TAKEN_PER_CALL do
    local value = redis.call('RPOP', keys[3])
    if not value then
      break
    end
    redis.call('XADD', c.P .. 'requests', '*', 'door', args[1], 'kind', args[2], 'value', string.sub(value, 1, 100000))
    taken = taken + 1
  end
  return taken
end)
