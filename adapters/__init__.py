"""Framework adapters: pluggy plugins that use the same door as anyone else's."""
