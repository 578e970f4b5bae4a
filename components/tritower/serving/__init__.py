"""The model server: a search in, ranked jobs out. A layer above the rooms: it may import them, none imports it."""
