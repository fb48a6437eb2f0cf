"""The pages of the control room: what an observer asks of the newest image at three in the morning.

One process reads the board's event stream once, keeps the night in memory (`live`), and fans it out to
every viewer (`hub`) as server-sent events. Pages and JSON are two views of the same models (`models`).
Everything here only reads; anonymous viewers cannot change a thing.
"""
