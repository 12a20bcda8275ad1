"""The output's config.json: attributes that follow their layers, scalars that donors differ in, sizes."""
