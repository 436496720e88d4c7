"""One file a revision; the newest is `router.store.schema.HEAD`."""
