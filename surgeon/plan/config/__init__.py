"""The output's config.json: attributes that follow their layers, scalars in which donors differ, and size estimates."""
