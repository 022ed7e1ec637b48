"""What a model has learned: filters of its first layer, position embeddings, how far its heads attend."""
