"""The variational autoencoder of Kingma & Welling (arXiv 1312.6114) as pure functions."""
