"""AIR-Net (Blythman et al., WACV Workshops 2022) as a plugin of reidcore."""
