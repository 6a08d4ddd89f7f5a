"""An auction whose pages follow every bid as it is placed."""
