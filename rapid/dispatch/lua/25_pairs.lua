-- Intra-/extra-focal pairs ------------------------------------------------------------------
-- Field 'pair' of the control hash: 'order|until|awaits' of the newest exposure posted; awaits is 1 if it is the
-- first of a pair. A newer exposure of any kind ends the wait; so does the time.

local PAIR_TTL_MS = 600000 -- a partner that has not come after ten minutes will not come

-- Note what an exposure's post means for pairs. Older exposures, and those asked for again, mean nothing.
local function note_pair(c, facts)
  local order, until_ms = string.match(c.control.pair or '', '^(%d+)|(%d+)|')
  if facts.forced == 1 or (order and c.now < tonumber(until_ms) and facts.order < tonumber(order)) then
    return
  end
  redis.call('HSET', c.P .. 'control', 'pair',
    string.format('%.0f|%.0f|%d', facts.order, c.now + PAIR_TTL_MS, facts.pair or 0))
end

-- Whether the first exposure of a pair was posted and the second is due.
local function is_between_pair(c)
  local until_ms, awaits = string.match(c.control.pair or '', '^%d+|(%d+)|(%d)$')
  return awaits == '1' and c.now < tonumber(until_ms)
end
