// Tiles by address: loaded a few at a time, the ones in sight first, the oldest let go.

const N_TILES_KEPT = 400;
const N_LOADING = 8;

export class TileCache {
  /** @param onTile is called when a tile has come; onLoading with how many are on their way. */
  constructor({ onTile = () => {}, onLoading = () => {} } = {}) {
    Object.assign(this, { onTile, onLoading });
    this.tiles = new Map(); // by address: {image, state, used}
    this.loading = 0;
    this.wanted = [];
    this.clock = 0;
  }

  /** A new frame is drawn: what the last one waited for, and this one does not ask for, is not loaded. */
  begin() {
    this.clock += 1;
    this.wanted = [];
  }

  /** The tile of an address as far as it is here, marked as in use; null if it is unknown and not wanted. */
  tile(address, isWanted) {
    let tile = this.tiles.get(address);
    if (!tile) {
      if (!isWanted) return null;
      tile = { state: "new", image: null };
      this.tiles.set(address, tile);
    }
    tile.used = this.clock;
    if (tile.state === "new" && isWanted) this.wanted.push(address);
    return tile;
  }

  load() {
    while (this.loading < N_LOADING && this.wanted.length) {
      const address = this.wanted.shift();
      const tile = this.tiles.get(address);
      if (!tile || tile.state !== "new") continue;
      tile.state = "loading";
      this.loading += 1;
      fetch(address, { signal: AbortSignal.timeout(30_000) })
        .then(async (response) => {
          if (response.status === 200) tile.image = await createImageBitmap(await response.blob());
          tile.state = response.ok ? "here" : "failed";
        })
        .catch(() => { tile.state = "failed"; })
        .finally(() => {
          this.loading -= 1;
          if (tile.image) this.onTile();
          this.load();
          this.onLoading(this.loading);
        });
    }
  }

  /** Let the oldest go that this frame does not use. */
  trim() {
    if (this.tiles.size <= N_TILES_KEPT) return;
    const old = [...this.tiles].filter(([, tile]) => tile.used < this.clock && tile.state !== "loading").sort((a, b) => a[1].used - b[1].used);
    for (const [address, tile] of old.slice(0, this.tiles.size - N_TILES_KEPT)) {
      tile.image?.close();
      this.tiles.delete(address);
    }
  }
}
