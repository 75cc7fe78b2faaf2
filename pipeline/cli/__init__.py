"""The commands, their options and what each prints; `app` joins them."""
