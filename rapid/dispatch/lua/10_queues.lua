-- Queues and placement -------------------------------------------------------------

local function newest_of(c, pool)
  if not c.newest[pool] then
    local order, until_ms = string.match(c.control['newest:' .. pool] or '', '^(%d+)|(%d+)$')
    c.newest[pool] = order and c.now < tonumber(until_ms) and tonumber(order) or 0
  end
  return c.newest[pool]
end

local function is_current(c, pool, score)
  return score % 2 == 1 and (score - 1) / 2 >= newest_of(c, pool)
end

-- ZRANGE bounds of the current jobs of a queue.
local function first_current(c, pool)
  return newest_of(c, pool) * 2 + 1
end

-- Take a job out of where it is queued; owner: whose own queue it is known to be in.
local function unqueue(c, job, pool, detector, owner)
  local P = c.P
  local removed = owner and redis.call('ZREM', P .. 'held:' .. pool, job) or 0
  if removed == 0 then
    removed = redis.call('ZREM', P .. 'queue:' .. pool, job)
  end
  if removed == 0 and not owner then
    removed = redis.call('ZREM', P .. 'held:' .. pool, job)
    if removed == 0 then
      removed = redis.call('ZREM', P .. 'pinned:' .. pool .. ':' .. detector, job)
    end
  end
  if removed == 1 then
    owner = owner or redis.call('HGET', P .. 'owners:' .. pool, job)
    if owner then
      redis.call('HDEL', P .. 'owners:' .. pool, job)
      redis.call('ZREM', P .. 'own:' .. pool .. ':' .. owner, job)
    end
  end
  return removed
end

-- Take several jobs out of the one place where choose() found them.
local function unqueue_all(c, jobs, found)
  local P, pool = c.P, found.pool
  if found.place == 'pinned' then
    call_many('ZREM', found.key, jobs)
    return
  end
  if found.place == 'own' then
    local held = redis.call('ZREM', P .. 'held:' .. pool, unpack(jobs))
    if held < #jobs then
      redis.call('ZREM', P .. 'queue:' .. pool, unpack(jobs))
    end
    redis.call('ZREM', found.key, unpack(jobs))
    redis.call('HDEL', P .. 'owners:' .. pool, unpack(jobs))
    return
  end
  redis.call('ZREM', found.key, unpack(jobs))
  local owners = redis.call('HMGET', P .. 'owners:' .. pool, unpack(jobs))
  for i, job in ipairs(jobs) do
    if owners[i] then
      redis.call('HDEL', P .. 'owners:' .. pool, job)
      redis.call('ZREM', P .. 'own:' .. pool .. ':' .. owners[i], job)
    end
  end
end

-- Ids of jobs hold no space: a list of them is a text with spaces.
local function words(text)
  local list = {}
  for word in string.gmatch(text or '', '%S+') do
    list[#list + 1] = word
  end
  return list
end

local function worker_of(c, id)
  local f = redis.call('HMGET', c.P .. 'worker:' .. id, 'pools', 'pinned', 'lease_ms', 'jobs', 'preempt', 'preempt_pool', 'limit')
  if not f[1] then
    return nil
  end
  local worker = {id = id, pools = {}, lease_ms = tonumber(f[3]), jobs = words(f[4]), preempt = f[5] or '', preempt_pool = f[6],
    limit = tonumber(f[7] or '') or 1}
  for pool in string.gmatch(f[1], '[^,]+') do
    worker.pools[#worker.pools + 1] = pool
  end
  if f[2] and f[2] ~= '' then
    worker.pinned = {}
    for detector in string.gmatch(f[2], '[^,]+') do
      worker.pinned[#worker.pinned + 1] = detector
    end
  end
  return worker
end

local function unpark(c, worker)
  for _, pool in ipairs(worker.pools) do
    redis.call('ZREM', c.P .. 'parked:' .. pool, worker.id)
  end
end

-- What a worker is told of jobs of one batch; entries: detector, raw, attempt, token of each.
local function message_of(c, batch, entries, class, lease_ms, posted_ms, claimed_ms, spec)
  return cjson.encode({batch = batch, jobs = entries, mode = c.mode, priority = class, lease_ms = lease_ms, posted_ms = tonumber(posted_ms),
    claimed_ms = claimed_ms}) .. '\n' .. spec
end

-- Lease jobs of one batch to a worker. Returns the message it gets: facts of the jobs, newline, spec of the batch.
local function lease(c, jobs, worker, pool, score, is_own)
  local P, detectors = c.P, {}
  local batch = split_job(jobs[1])
  for i, job in ipairs(jobs) do
    local _, detector = split_job(job)
    detectors[i] = detector
  end
  local f = c.batches[batch]
  if not f then
    f = redis.call('HMGET', P .. 'batch:' .. batch, 'spec', 'posted_ms')
    c.batches[batch] = f
  end
  local raws = ask_many('HMGET', P .. 'raws:' .. batch, detectors)
  local before = ask_many('HMGET', P .. 'attempts:' .. batch, detectors)
  local tokens = next_tokens(c, #jobs)
  local class = is_current(c, pool, score) and 'current' or 'backlog'
  local entries, attempts, leases, affinity = {}, {}, {}, {}
  local rest = '|' .. worker.id .. '|' .. class .. '|' .. string.format('%.0f', c.now) .. '|held'
  local facts, told = {}, string.format('{"worker":"%s","priority":"%s","queue_ms":%.0f,"attempt":', worker.id, class, c.now - f[2])
  for i, detector in ipairs(detectors) do
    local attempt = (tonumber(before[i] or '') or 0) + 1
    entries[i] = {tonumber(detector), raws[i] or '', attempt, tokens[i]}
    attempts[2 * i - 1], attempts[2 * i] = detector, attempt
    leases[2 * i - 1], leases[2 * i] = detector, tokens[i] .. rest
    affinity[2 * i - 1], affinity[2 * i] = detector, worker.id
    facts[i] = told .. attempt .. '}'
  end
  emit_all(c, 'job_started', batch, detectors, facts)
  call_many('HSET', P .. 'attempts:' .. batch, attempts)
  call_many('HSET', P .. 'leases:' .. batch, leases)
  set_job_timers(c, 'L', jobs, c.now + lease_time(c, worker.lease_ms))
  redis.call('HSET', P .. 'worker:' .. worker.id, 'jobs', table.concat(jobs, ' '), 'state', 'busy', 'class', class)
  if not is_own then
    call_many('HSET', P .. 'affinity:' .. pool, affinity)
  end
  if class == 'backlog' and not worker.pinned then
    for _, name in ipairs(worker.pools) do
      redis.call('ZADD', P .. 'stealable:' .. name, c.now, worker.id)
    end
  end
  return message_of(c, batch, entries, class, real_lease_ms(c, worker.lease_ms), f[2], c.now, f[1])
end

local function hand_over(c, id, message)
  local key = c.P .. 'wake:' .. id
  redis.call('RPUSH', key, message)
  redis.call('PEXPIRE', key, WAKE_TTL_MS)
end

-- Lease jobs of one batch to a worker that waits for one.
local function give(c, jobs, worker, pool, score, is_own)
  unpark(c, worker)
  hand_over(c, worker.id, lease(c, jobs, worker, pool, score, is_own))
end

-- Ask a worker to give up its backlog job. Returns whether it was asked.
local function order_preempt(c, id, pool)
  local P = c.P
  local f = redis.call('HMGET', P .. 'worker:' .. id, 'jobs', 'class', 'preempt', 'pools')
  if not f[1] or f[1] == '' or f[2] ~= 'backlog' or (f[3] and f[3] ~= '') then
    return false
  end
  local batch, detector = split_job(f[1])
  local token = string.match(redis.call('HGET', P .. 'leases:' .. batch, detector) or '', '^(%d+)|')
  if not token then
    return false
  end
  redis.call('RPUSH', P .. 'orders:' .. id, cjson.encode({order = 'preempt', job_id = f[1], token = token}))
  redis.call('PEXPIRE', P .. 'orders:' .. id, WAKE_TTL_MS)
  redis.call('HSET', P .. 'worker:' .. id, 'preempt', token, 'preempt_pool', pool)
  redis.call('ZADD', P .. 'preempting:' .. pool, c.now, id)
  for name in string.gmatch(f[4], '[^,]+') do
    redis.call('ZREM', P .. 'stealable:' .. name, id)
  end
  count(c, 'preemptions')
  return true
end

-- Workers a detector is pinned to, of one pool.
local function pinned_to(c, pool, detector)
  local pins = c.pools[pool]
  if not pins then
    pins = {}
    local flat = redis.call('HGETALL', c.P .. 'pins:' .. pool)
    for i = 1, #flat, 2 do
      pins[flat[i]] = flat[i + 1]
    end
    c.pools[pool] = pins
  end
  return pins[detector]
end

-- Put a batch's jobs where their workers find them: to waiting workers at once, else into queues. A job of a pinned
-- detector goes to a worker it is pinned to; one whose calibs a worker has, to that worker, or, if it is busy, is held for
-- it for the grace time; any other to the queue for anyone, which spread() then serves. score_of_detector: nil for the
-- batch's score. Returns how many started.
local function place_all(c, batch, detectors, pool, score, grace_ms, score_of_detector)
  local P, started = c.P, 0
  local own, owners, held, queue, takers = {}, {}, {}, {}, {}
  local affinity = ask_many('HMGET', P .. 'affinity:' .. pool, detectors)
  local has_pins = redis.call('EXISTS', P .. 'pins:' .. pool) == 1
  local current, may_start, urgent, known
  for i, detector in ipairs(detectors) do
    local job = job_of(batch, detector)
    local job_score = score_of_detector and score_of_detector[detector] or score
    if job_score ~= known then
      known, current = job_score, is_current(c, pool, job_score)
      may_start, urgent = current or c.mode ~= 'waiting', current and c.mode == 'preempting'
    end
    local pins, owner = has_pins and pinned_to(c, pool, detector), affinity[i]
    if owner and not takers[owner] then
      -- state: gone, busy, or parked; a parked one takes as many as it asked for, of one score.
      local state = redis.call('ZSCORE', P .. 'workers', owner) and
        (redis.call('ZSCORE', P .. 'parked:' .. pool, owner) and 'parked' or 'busy') or 'gone'
      takers[owner] = {state = state, jobs = {}, room = state == 'parked' and 1 or 0,
        limit = state == 'parked' and tonumber(redis.call('HGET', P .. 'worker:' .. owner, 'limit') or '1')}
    end
    local mine = owner and takers[owner]
    if pins then
      local taker
      for id in string.gmatch(pins, '[^,]+') do
        if may_start and not taker and redis.call('HGET', P .. 'worker:' .. id, 'state') == 'parked' then
          taker = id
        end
      end
      if taker then
        give(c, {job}, worker_of(c, taker), pool, job_score)
        started = started + 1
      else
        redis.call('ZADD', P .. 'pinned:' .. pool .. ':' .. detector, job_score, job)
        for id in string.gmatch(urgent and pins or '', '[^,]+') do
          if order_preempt(c, id, pool) then
            break
          end
        end
      end
    elseif mine and may_start and mine.room > 0 and (not mine.score or mine.score == job_score) then
      if not mine.score then
        mine.score, mine.room = job_score, current and math.min(mine.limit, JOBS_PER_CLAIM) or 1
      end
      mine.jobs[#mine.jobs + 1] = job
      mine.room = mine.room - 1
    elseif mine and mine.state ~= 'gone' then
      local entries = own[owner]
      if not entries then
        entries = {}
        own[owner] = entries
      end
      entries[#entries + 1] = job_score
      entries[#entries + 1] = job
      owners[#owners + 1] = job
      owners[#owners + 1] = owner
      local place = grace_ms > 0 and held or queue
      place[#place + 1] = job_score
      place[#place + 1] = job
      if grace_ms > 0 and urgent then
        order_preempt(c, owner, pool)
      end
    else
      queue[#queue + 1] = job_score
      queue[#queue + 1] = job
    end
  end
  for id, mine in pairs(takers) do
    if #mine.jobs > 0 then
      give(c, mine.jobs, worker_of(c, id), pool, mine.score, true)
      started = started + #mine.jobs
    end
  end
  for owner, entries in pairs(own) do
    call_many('ZADD', P .. 'own:' .. pool .. ':' .. owner, entries)
  end
  call_many('HSET', P .. 'owners:' .. pool, owners)
  call_many('ZADD', P .. 'queue:' .. pool, queue)
  if #held > 0 then
    call_many('ZADD', P .. 'held:' .. pool, held)
    if not redis.call('ZSCORE', P .. 'timers', 'H' .. batch) then
      set_timer(c, 'H' .. batch, c.now + grace_ms)
    end
  end
  return started
end

-- Give what is queued for anyone to workers that wait; in mode preempting, ask busy ones. Returns how many started.
local function spread(c, pool)
  local P, started = c.P, 0
  local queue, parked = P .. 'queue:' .. pool, P .. 'parked:' .. pool
  while true do
    local top = redis.call('ZREVRANGE', queue, 0, 0, 'WITHSCORES')
    if not top[1] then
      return started
    end
    if c.mode == 'waiting' and not is_current(c, pool, tonumber(top[2])) then
      return started
    end
    local id = redis.call('ZRANGE', parked, 0, 0)[1]
    if not id then
      break
    end
    local worker = worker_of(c, id)
    if worker then
      local _, detector = split_job(top[1])
      unqueue(c, top[1], pool, detector)
      give(c, {top[1]}, worker, pool, tonumber(top[2]))
      started = started + 1
    else
      redis.call('ZREM', parked, id)
    end
  end
  if c.mode == 'preempting' then
    local wanted = redis.call('ZCOUNT', queue, first_current(c, pool), '+inf') - redis.call('ZCARD', P .. 'preempting:' .. pool)
    while wanted > 0 do
      -- The one that began last loses least.
      local id = redis.call('ZREVRANGE', P .. 'stealable:' .. pool, 0, 0)[1]
      if not id then
        break
      end
      redis.call('ZREM', P .. 'stealable:' .. pool, id)
      if order_preempt(c, id, pool) then
        wanted = wanted - 1
      end
    end
  end
  return started
end

-- The newest job a worker may take now, leased to it; nil if there is none. With a limit above one, up to so many jobs
-- of the newest exposure from the same queue: for work so short that asking for each would take longer than doing it.
-- Backlog is given singly, so that it can be taken back singly.
local function choose(c, worker, limit)
  local P, best = c.P, nil
  local waiting = c.mode == 'waiting'
  local function consider(key, pool, place)
    local top = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
    if top[1] then
      local score = tonumber(top[2])
      local current = is_current(c, pool, score)
      -- Strictly greater: among equals the first one asked, its own, wins.
      if (current or not waiting) and (not best or (current and not best.current)
        or (current == best.current and score > best.score)) then
        best = {job = top[1], score = score, pool = pool, current = current, key = key, place = place}
      end
    end
  end
  for _, pool in ipairs(worker.pools) do
    if worker.pinned then
      for _, detector in ipairs(worker.pinned) do
        consider(P .. 'pinned:' .. pool .. ':' .. detector, pool, 'pinned')
      end
    else
      consider(P .. 'own:' .. pool .. ':' .. worker.id, pool, 'own')
      consider(P .. 'queue:' .. pool, pool, 'queue')
    end
  end
  if not best then
    return nil
  end
  local jobs = {best.job}
  if limit > 1 and best.current then
    if best.place == 'queue' then
      -- Leave the others their share: what is taken last decides when all is done.
      limit = math.min(limit, math.ceil(redis.call('ZCARD', best.key) / (2 * redis.call('ZCARD', P .. 'workers'))))
    end
    local batch = split_job(best.job)
    local entries = redis.call('ZREVRANGE', best.key, 1, math.min(limit, JOBS_PER_CLAIM) - 1, 'WITHSCORES')
    for i = 1, limit > 1 and #entries or 0, 2 do
      if tonumber(entries[i + 1]) == best.score and split_job(entries[i]) == batch then
        jobs[#jobs + 1] = entries[i]
      end
    end
  end
  unqueue_all(c, jobs, best)
  return lease(c, jobs, worker, best.pool, best.score, best.place == 'own')
end
