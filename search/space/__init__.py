"""Search spaces: loaded, counted, sampled, and where a spec lies in one."""
