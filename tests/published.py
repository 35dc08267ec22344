"""DeOldify's network as its checkpoints' tensor names tell it: another way to the same answers, for sizes that no reference file has."""
import torch
import torch.nn.functional as F
import torchvision
from torch import nn


class Published:
    "A published checkpoint, computed tensor by tensor in float32; names are those of the file, less 'layers.'."
    def __init__(self, state: dict):
        self.state = {k.removeprefix('layers.'): v for k, v in state.items()}
        resnet = torchvision.models.resnet101() if '0.4.0.conv3.weight' in self.state else torchvision.models.resnet34()
        self.body = nn.Sequential(*list(resnet.children())[:-2]).eval()
        self.body.load_state_dict({k.removeprefix('0.'): v for k, v in self.state.items() if k.startswith('0.')})

    def weight(self, name):
        "Spectral norm divides by the largest singular value, u W v; weight norm has a direction and a length."
        s = self.state
        if f'{name}.weight_g' in s:
            v = s[f'{name}.weight_v']
            return s[f'{name}.weight_g'] * v / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        w, u, v = (s[f'{name}.weight_{kind}'] for kind in ('orig', 'u', 'v'))
        return w / (u @ w.flatten(1) @ v)

    def conv(self, name, x):
        w = self.weight(name)
        return (F.conv2d if w.ndim == 4 else F.conv1d)(x, w, self.state.get(f'{name}.bias'), padding=w.shape[-1] // 2)

    def norm(self, name, x):
        mean, var, w, b = (self.state[f'{name}.{kind}'] for kind in ('running_mean', 'running_var', 'weight', 'bias'))
        return F.batch_norm(x, mean, var, w, b)

    def layer(self, name, x): return self.norm(f'{name}.2', F.relu(self.conv(f'{name}.0', x)))

    def up(self, name, x):
        x = self.conv(f'{name}.conv.0', x)
        if f'{name}.conv.1.weight' in self.state: x = self.norm(f'{name}.conv.1', x)
        x = F.pixel_shuffle(F.relu(x), 2)
        return F.avg_pool2d(F.pad(x, (1, 0, 1, 0), mode='replicate'), 2, stride=1)

    def attention(self, name, x):
        flat = x.flatten(2)
        query, key, value = (self.conv(f'{name}.{kind}', flat) for kind in ('query', 'key', 'value'))
        return self.state[f'{name}.gamma'] * (value @ (query.transpose(1, 2) @ key).softmax(1)).view(x.shape) + x

    def block(self, name, x, skip):
        x = self.up(f'{name}.shuf', x)
        if x.shape != skip.shape: x = F.interpolate(x, skip.shape[-2:], mode='nearest')
        x = F.relu(torch.cat([x, self.norm(f'{name}.bn', skip)], 1))
        for conv in ('conv', 'conv1', 'conv2'):
            if f'{name}.{conv}.0.weight_orig' in self.state: x = self.layer(f'{name}.{conv}', x)
            if f'{name}.{conv}.3.gamma' in self.state: x = self.attention(f'{name}.{conv}.3', x)
        return x

    @torch.no_grad()
    def __call__(self, photo):
        x, skips = photo, []
        for i, part in enumerate(self.body):
            x = part(x)
            if i in (2, 4, 5, 6): skips.append(x)
        x = F.relu(self.norm('1', x))
        for name in ('3.0', '3.1'): x = self.layer(name, x)
        for name, skip in zip('4567', reversed(skips)): x = self.block(name, x, skip)
        x = torch.cat([self.up('8', x), photo], 1)
        y = x
        for name in ('10.layers.0', '10.layers.1'): y = F.relu(self.conv(f'{name}.0', y))
        return self.conv('11.0', x + y).sigmoid() * 6 - 3
