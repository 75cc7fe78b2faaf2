"""The commands, their options and what each prints, in `build`, `models` and `housekeeping`; `app` joins them."""
