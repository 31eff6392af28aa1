"""What a Transformer is made of: attention, feed-forward, embedding, head, as operators."""
