"""The commands of `soda`, one function each. Heavy imports happen inside them: `soda --help` is instant."""
