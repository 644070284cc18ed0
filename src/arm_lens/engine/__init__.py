"""Everything that touches a model: reading and writing ``hook_z``, prefix cache, exact replay, gates, verdict tokens."""
