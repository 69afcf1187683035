"""PyTorch's side of `mnist_epoch.py`: one model, and two ways of feeding it."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import nn

Epoch = Callable[[], float]


class VAE(nn.Module):
    """784-400-20 as in pytorch/examples, with the loss on logits, which is as fast and safe from log(0)."""

    def __init__(self, pixels: int, hidden: int, latents: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(pixels, hidden)
        self.mean, self.logvar = nn.Linear(hidden, latents), nn.Linear(hidden, latents)
        self.decoder = nn.Sequential(nn.Linear(latents, hidden), nn.ReLU(), nn.Linear(hidden, pixels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The negative bound, nats per image."""
        features = torch.relu(self.encoder(x))
        mean, logvar = self.mean(features), self.logvar(features)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        logits = self.decoder(z)
        reconstruction = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        kl = 0.5 * torch.sum(mean**2 + logvar.exp() - 1.0 - logvar)
        return (reconstruction + kl) / len(x)


class ImageByImage(torch.utils.data.Dataset):
    """What torchvision's MNIST with `ToTensor` does: each image becomes one of PIL's, then an array, then a tensor."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.labels = torch.from_numpy(images), torch.zeros(len(images), dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        picture = Image.fromarray(self.images[index].numpy())
        pixels = torch.from_numpy(np.array(picture, copy=True)).view(picture.height, picture.width, 1)
        return pixels.permute((2, 0, 1)).contiguous().to(torch.float32).div(255), int(self.labels[index])


def in_memory(images: np.ndarray, hidden: int, latents: int, batch_size: int, binarize: bool) -> Epoch:
    """Batches are rows of one float tensor.

    Args:
        images: `uint8[N, H, W]`.
        hidden: Width of the hidden layers.
        latents: Numbers in z.
        batch_size: Images per step.
        binarize: Whether each batch is drawn anew from its grey values.

    Returns:
        A function that trains for an epoch and returns the mean loss.
    """
    data = torch.from_numpy(images.reshape(len(images), -1)).float() / 255.0

    def batches() -> Iterator[torch.Tensor]:
        order = torch.randperm(len(data))
        for start in range(0, len(data) - batch_size + 1, batch_size):
            batch = data[order[start : start + batch_size]]
            yield torch.bernoulli(batch) if binarize else batch

    return _epoch(VAE(data.shape[1], hidden, latents), batches)


def image_by_image(images: np.ndarray, hidden: int, latents: int, batch_size: int) -> Epoch:
    """The data path of pytorch/examples/vae as it is without a GPU: a `DataLoader` without workers, grey values."""
    loader = torch.utils.data.DataLoader(ImageByImage(images), batch_size=batch_size, shuffle=True)
    pixels = images[0].size
    return _epoch(VAE(pixels, hidden, latents), lambda: (batch.view(-1, pixels) for batch, _ in loader))


def _epoch(model: VAE, batches: Callable[[], Iterator[torch.Tensor]]) -> Epoch:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch() -> float:
        losses = []
        for batch in batches():
            loss = model(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    return epoch
