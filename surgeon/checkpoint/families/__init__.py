"""What is known of model families: tensor names, what a config says of each layer, which types compute alike."""
