-- Workers and their jobs --------------------------------------------------------------

local function error_of(code, message, worker)
  return cjson.encode({code = code, message = message, worker = worker})
end

-- Pins are a set per detector: ',w1,w2,'. A dead worker's detectors go back to everyone.
local function pin(c, worker)
  for _, pool in ipairs(worker.pools) do
    for _, detector in ipairs(worker.pinned or {}) do
      local pins = redis.call('HGET', c.P .. 'pins:' .. pool, detector) or ','
      if not string.find(pins, ',' .. worker.id .. ',', 1, true) then
        redis.call('HSET', c.P .. 'pins:' .. pool, detector, pins .. worker.id .. ',')
      end
    end
    c.pools[pool] = nil
    if worker.pinned then
      -- What is queued already for its detectors becomes its own: once, when it joins.
      for _, from in ipairs({'queue:', 'held:'}) do
        local entries = redis.call('ZRANGE', c.P .. from .. pool, 0, -1, 'WITHSCORES')
        for i = 1, #entries, 2 do
          local _, detector = split_job(entries[i])
          if pinned_to(c, pool, detector) then
            unqueue(c, entries[i], pool, detector)
            redis.call('ZADD', c.P .. 'pinned:' .. pool .. ':' .. detector, entries[i + 1], entries[i])
          end
        end
      end
    end
  end
end

local function unpin(c, worker)
  for _, pool in ipairs(worker.pools) do
    for _, detector in ipairs(worker.pinned or {}) do
      local pins = redis.call('HGET', c.P .. 'pins:' .. pool, detector) or ','
      local from, to = string.find(pins, ',' .. worker.id .. ',', 1, true)
      if from then
        pins = string.sub(pins, 1, from) .. string.sub(pins, to + 1)
      end
      if pins == ',' then
        redis.call('HDEL', c.P .. 'pins:' .. pool, detector)
        local key = c.P .. 'pinned:' .. pool .. ':' .. detector
        local entries = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
        for i = 1, #entries, 2 do
          redis.call('ZADD', c.P .. 'queue:' .. pool, entries[i + 1], entries[i])
        end
        redis.call('DEL', key)
      else
        redis.call('HSET', c.P .. 'pins:' .. pool, detector, pins)
      end
    end
    c.pools[pool] = nil
  end
end

-- The message of a lease, in a worker's wake list: it was never received.
local function is_undelivered(c, id, token)
  local last = redis.call('LINDEX', c.P .. 'wake:' .. id, -1)
  return last and string.find(last, '"' .. token .. '"', 1, true) ~= nil
end

-- Take the job a worker holds away from it. how as in give_back, or nil to find out.
local function take_back(c, id, job, how, state, error_json)
  local batch, detector = split_job(job)
  local token, holder, class, since, held = lease_of(c, batch, detector)
  if held ~= 'held' or holder ~= id then
    return
  end
  if is_undelivered(c, id, token) then
    how = 'free'
  end
  redis.call('DEL', c.P .. 'wake:' .. id)
  end_lease(c, batch, detector, token, id, class, state)
  return give_back(c, batch, detector, how, error_json, false)
end

local function serve(c, worker)
  for _, pool in ipairs(worker.pools) do
    spread(c, pool)
  end
end

local function remove_worker(c, id, how, code, message)
  local P, worker = c.P, worker_of(c, id)
  redis.call('ZREM', P .. 'workers', id)
  clear_timer(c, 'W' .. id)
  if not worker then
    return
  end
  unpark(c, worker)
  unpin(c, worker)
  for _, job in ipairs(worker.jobs) do
    take_back(c, id, job, how, how == 'free' and 'released' or 'expired', error_of(code, message, id))
  end
  for _, pool in ipairs(worker.pools) do
    local own = P .. 'own:' .. pool .. ':' .. id
    local entries = redis.call('ZRANGE', own, 0, -1, 'WITHSCORES')
    for i = 1, #entries, 2 do
      redis.call('HDEL', P .. 'owners:' .. pool, entries[i])
      if redis.call('ZREM', P .. 'held:' .. pool, entries[i]) == 1 then
        redis.call('ZADD', P .. 'queue:' .. pool, entries[i + 1], entries[i])
      end
    end
    redis.call('DEL', own)
    redis.call('ZREM', P .. 'stealable:' .. pool, id)
    redis.call('ZREM', P .. 'preempting:' .. pool, id)
  end
  redis.call('DEL', P .. 'worker:' .. id, P .. 'wake:' .. id, P .. 'orders:' .. id)
  emit(c, 'worker_left', nil, nil, cjson.encode({worker = id, reason = message}))
  serve(c, worker)
end

-- The message of the jobs a worker holds, if it holds some: those of one batch.
local function held_message(c, worker)
  local P, batch, class, since, jobs, entries = c.P, nil, nil, nil, {}, {}
  for _, job in ipairs(worker.jobs) do
    local of, detector = split_job(job)
    local token, holder, its_class, its_since, state = lease_of(c, of, detector)
    if state == 'held' and holder == worker.id and (not batch or of == batch) then
      batch, class, since = of, its_class, its_since
      jobs[#jobs + 1] = job
      entries[#entries + 1] = {tonumber(detector), redis.call('HGET', P .. 'raws:' .. of, detector) or '',
        tonumber(redis.call('HGET', P .. 'attempts:' .. of, detector)), token}
    end
  end
  if not batch then
    return nil
  end
  local f = redis.call('HMGET', P .. 'batch:' .. batch, 'spec', 'posted_ms')
  set_job_timers(c, 'L', jobs, c.now + lease_time(c, worker.lease_ms))
  return message_of(c, batch, entries, class, real_lease_ms(c, worker.lease_ms), f[2], tonumber(since), f[1])
end

-- A worker has spoken. Not only by its heartbeat: one that ends a job within each third of a lease, and is given the next
-- with the answer, sends none.
local function seen(c, id)
  if redis.call('EXISTS', c.P .. 'worker:' .. id) == 1 then
    redis.call('HSET', c.P .. 'worker:' .. id, 'seen_ms', c.now)
    redis.call('ZADD', c.P .. 'workers', 'XX', c.now, id)
  end
end

-- heartbeat: ARGV worker, and job, token of each that it has in hand. Returns preempt, mode, how
-- long its leases now last for it (ms), and the jobs it has lost.
redis.register_function('rapid_v1_heartbeat', function(keys, args)
  local c, id = context(keys), args[1]
  local f = redis.call('HMGET', c.P .. 'worker:' .. id, 'lease_ms', 'preempt')
  seen(c, id)
  local answer = {(f[2] and f[2] ~= '') and 1 or 0, c.mode, f[1] and real_lease_ms(c, f[1]) or 0}
  for i = 2, #args, 2 do
    -- Only the jobs it names: one given to it that it never heard of must run out (I7).
    local batch, detector = split_job(args[i])
    local token, holder, _, _, state = lease_of(c, batch, detector)
    if f[1] and state == 'held' and holder == id and token == args[i + 1] then
      redis.call('ZADD', c.P .. 'timers', c.now + lease_time(c, f[1]), 'L' .. args[i])
    else
      answer[#answer + 1] = args[i]
    end
  end
  return answer
end)

-- Check a job's token. Returns batch, detector, worker, class, since; or nil and what to answer: a repetition of a
-- call whose answer was lost is told the same again, anything else is refused (I3).
local function entitled(c, job, given, state)
  local batch, detector = split_job(job)
  local token, id, class, since, held = lease_of(c, batch, detector)
  if token == given and held == 'held' then
    seen(c, id)
    return batch, detector, id, class, since
  end
  if token == given and held == state then
    return nil, id
  end
  count(c, 'refused')
  return nil, nil
end

-- Next jobs for a worker that has just ended some; '' if there are none.
local function next_jobs(c, worker, limit)
  return worker and limit > 0 and (held_message(c, worker) or choose(c, worker, limit)) or ''
end

-- The results of jobs of one batch are here. results: lists of detectors, tokens, metrics; held_ms: how long they were
-- leased together. Returns the worker.
local function finish(c, batch, results, id, class, stays_busy)
  local P, detectors = c.P, results.detectors
  local worker = end_leases(c, batch, detectors, results.tokens, id, class, 'done', stays_busy)
  local metrics = {}
  for i, detector in ipairs(detectors) do
    metrics[2 * i - 1], metrics[2 * i] = detector, results.metrics[i]
  end
  emit_all(c, 'job_finished', batch, detectors, results.metrics)
  call_many('SADD', P .. 'finished:' .. batch, detectors)
  call_many('HSET', P .. 'metrics:' .. batch, metrics)
  local settled = 0
  for from = 1, #detectors, 1000 do
    settled = settled + redis.call('SREM', P .. 'unsettled:' .. batch, unpack(detectors, from, math.min(from + 999, #detectors)))
  end
  if settled < #detectors then
    call_many('HDEL', P .. 'reasons:' .. batch, detectors)
  end
  count(c, 'finished', #detectors)
  -- What a job of this pipeline takes a worker, as a running mean: how soon an exposure will be done is told from it.
  local pipeline, each_ms = string.match(batch, '([^.]*)$'), results.held_ms / #detectors
  local mean_ms = tonumber(redis.call('HGET', P .. 'costs', pipeline) or '') or each_ms
  redis.call('HSET', P .. 'costs', pipeline, string.format('%.3f', mean_ms + COST_WEIGHT * (each_ms - mean_ms)))
  note_result(c, batch)
  return worker
end

-- complete: ARGV how many jobs it may be given next, and job, token, metrics (JSON) of each that is done. Returns the
-- message of its next jobs or '', and the jobs that were refused: their leases were lost (I3).
redis.register_function('rapid_v1_complete', function(keys, args)
  local c, limit, last_id = context(keys), tonumber(args[1]), nil
  local batches, detectors, order, answer = {}, {}, {}, {''}
  for i = 2, #args, 3 do
    local batch, detector = split_job(args[i])
    if not batches[batch] then
      batches[batch], detectors[batch] = {}, {}
      order[#order + 1] = batch
    end
    table.insert(batches[batch], i)
    table.insert(detectors[batch], detector)
  end
  local groups, worker = {}, nil
  for _, batch in ipairs(order) do
    local leases = ask_many('HMGET', c.P .. 'leases:' .. batch, detectors[batch])
    for n, i in ipairs(batches[batch]) do
      local token, id, class, since, state = read_lease(leases[n])
      if token == args[i + 1] and state == 'held' then
        local group = groups[batch .. ' ' .. id]
        if not group then
          group = {batch = batch, id = id, class = class, detectors = {}, tokens = {}, metrics = {}, held_ms = c.now - since}
          groups[batch .. ' ' .. id] = group
          groups[#groups + 1] = group
        end
        table.insert(group.detectors, detectors[batch][n])
        table.insert(group.tokens, token)
        table.insert(group.metrics, args[i + 2])
      elseif token == args[i + 1] and state == 'done' then
        last_id = id -- said before; the answer was lost
      else
        count(c, 'refused')
        answer[#answer + 1] = args[i]
      end
    end
  end
  for _, group in ipairs(groups) do
    seen(c, group.id)
    worker = finish(c, group.batch, group, group.id, group.class, limit > 0)
  end
  if not worker and last_id then
    worker = worker_of(c, last_id)
  end
  answer[1] = next_jobs(c, worker, limit)
  if #groups > 0 and limit > 0 and answer[1] == '' and worker and #worker.jobs == 0 then
    redis.call('HSET', c.P .. 'worker:' .. worker.id, 'jobs', '', 'state', 'idle', 'class', '')
  end
  return answer
end)

-- fail: ARGV job, token, error (JSON), retry (later, never, ignore)
redis.register_function('rapid_v1_fail', function(keys, args)
  local c = context(keys)
  local batch, detector, id, class = entitled(c, args[1], args[2], 'failed')
  if not batch then
    return detector and 'repeated' or refused('lease_lost', args[1])
  end
  end_lease(c, batch, detector, args[2], id, class, 'failed')
  count(c, 'failed')
  if args[4] == 'ignore' then
    settle(c, batch, detector, 'excluded', tostring(cjson.decode(args[3]).message or 'nothing to do'))
    note_result(c, batch)
    return 'settled'
  end
  local outcome = give_back(c, batch, detector, args[4] == 'never' and 'last' or 'counted', args[3], true)
  if c.touched then
    spread(c, c.touched)
  end
  return outcome
end)

-- release: ARGV job, token, count_attempt (1 or 0), reason, claim_next (1 or 0). The worker takes its next job before
-- the released one is offered to others.
redis.register_function('rapid_v1_release', function(keys, args)
  local c = context(keys)
  local batch, detector, id, class = entitled(c, args[1], args[2], 'released')
  if not batch then
    if not detector then
      return refused('lease_lost', args[1])
    end
    return {'repeated', next_jobs(c, worker_of(c, detector), tonumber(args[5]))}
  end
  local worker = end_lease(c, batch, detector, args[2], id, class, 'released')
  count(c, 'released')
  local error_json = error_of('released', args[4], id)
  local outcome = give_back(c, batch, detector, args[3] == '1' and 'counted' or 'free', error_json, false)
  local message = next_jobs(c, worker, tonumber(args[5]))
  if c.touched then
    spread(c, c.touched)
  end
  return {outcome, message}
end)

-- leave: ARGV worker, boot. A worker that stops says so, and nobody waits for it.
redis.register_function('rapid_v1_leave', function(keys, args)
  local c = context(keys)
  local boot = redis.call('HGET', c.P .. 'worker:' .. args[1], 'boot')
  if boot ~= args[2] then
    return 0
  end
  remove_worker(c, args[1], 'free', 'released', 'worker ' .. args[1] .. ' stopped')
  return 1
end)
