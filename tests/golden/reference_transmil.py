"""TransMIL in NumPy and float64, one bag at a time, from arXiv:2106.00908, without code of the package.

``sequence`` is the exact form, ``square`` the published one: the Nystrom approximation on a square of instances.
"""

import math

import numpy as np


def weights(shapes):
    """Return parameters; entry j in C order of parameter i is sin(j (0.7 + 0.1 i)) / sqrt(last size)."""
    return [
        np.sin(np.arange(math.prod(shape)) * (0.7 + 0.1 * i)).reshape(shape) / math.sqrt(shape[-1])
        for i, shape in enumerate(shapes)
    ]


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(y, weight, bias):
    centered = y - y.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def split(z, heads):
    """Reshape (n, E) to (heads, n, E / heads)."""
    return z.reshape(len(z), heads, -1).transpose(1, 0, 2)


def join(z):
    return z.transpose(1, 0, 2).reshape(z.shape[1], -1)


def attention_shapes(size):
    return [(size,), (size,), (3 * size, size), (3 * size,), (size, size), (size,)]  # norm, q k v, output


def multi_head(y, params, heads):
    """Compute output (n, E), and the class row of scores and attention (heads, n)."""
    norm_weight, norm_bias, weight, bias, out_weight, out_bias = params
    q, k, v = (split(part, heads) for part in np.split(layer_norm(y, norm_weight, norm_bias) @ weight.T + bias, 3, -1))
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
    attention = softmax(scores)
    return join(attention @ v) @ out_weight.T + out_bias, scores[:, 0], attention[:, 0]


def convolve(y, kernel, bias):
    """Convolve instances (n, F) depthwise with zeros beyond them and a kernel (F, 1, width)."""
    width = kernel.shape[-1]
    out = np.tile(bias, (len(y), 1))
    for n in range(len(y)):
        for j in range(width):
            source = n + j - width // 2
            if 0 <= source < len(y):
                out[n] += kernel[:, 0, j] * y[source]
    return out


def sequence_shapes(features, classes):
    attention = attention_shapes(features)
    position = [shape for width in (3, 5, 7) for shape in ((features, 1, width), (features,))]
    return [(features,), *attention, *position, *attention, (classes, features), (classes,)]


def sequence(bag, params, heads, smooth=(lambda u: u, lambda u: u)):
    """Compute logits, embedding, scores and attention (n, heads) of a bag (n, F); ``smooth`` is that of SmTP."""
    class_token, first, position, second, head = params[0], params[1:7], params[7:13], params[13:19], params[19:]
    y = np.concatenate([class_token[None], bag])
    y = y + smooth[0](multi_head(y, first, heads)[0])
    x = y[1:]
    x = x + sum(convolve(x, *position[i : i + 2]) for i in (0, 2, 4))
    y = np.concatenate([y[:1], x])
    out, scores, attention = multi_head(y, second, heads)
    embedding = (y + smooth[1](out))[0]
    return head[0] @ embedding + head[1], embedding, scores.T[1:], attention.T[1:]


def pseudo_inverse(a, iterations=6):
    z = a.T / (np.abs(a).sum(0).max() * np.abs(a).sum(1).max())
    eye = np.eye(len(a))
    for _ in range(iterations):
        az = a @ z
        z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) / 4
    return z


def nystrom(y, params, heads, landmarks):
    """Compute output (n, E), and the exact class row of the scores (heads, n)."""
    norm_weight, norm_bias, kernel, weight, out_weight, out_bias = params
    y = layer_norm(y, norm_weight, norm_bias)
    count = math.ceil(len(y) / landmarks)
    front = count * landmarks - len(y)
    q, k, v = (
        split(part, heads) for part in np.split(np.concatenate([np.zeros((front, y.shape[1])), y]) @ weight.T, 3, -1)
    )
    q = q / math.sqrt(q.shape[-1])
    out = np.zeros_like(v)
    for h in range(heads):
        q_mark, k_mark = (z[h].reshape(landmarks, count, -1).mean(1) for z in (q, k))
        a1, a2, a3 = softmax(q[h] @ k_mark.T), softmax(q_mark @ k_mark.T), softmax(q_mark @ k[h].T)
        out[h] = (a1 @ pseudo_inverse(a2)) @ (a3 @ v[h])
        for n in range(out.shape[1]):
            for j in range(kernel.shape[-1]):
                source = n + j - kernel.shape[-1] // 2
                if 0 <= source < out.shape[1]:
                    out[h, n] += kernel[h, j] * v[h, source]
    scores = np.einsum("hd,hnd->hn", q[:, front], k[:, front:])
    return (join(out) @ out_weight.T + out_bias)[front:], scores


def convolve_square(y, side, kernel, bias):
    """Convolve a grid (side * side, E) depthwise with zeros beyond it and a kernel (E, 1, width, width)."""
    grid, width = y.reshape(side, side, y.shape[1]), kernel.shape[-1]
    out = np.tile(bias, (side, side, 1))
    for r in range(side):
        for c in range(side):
            for i in range(width):
                for j in range(width):
                    row, column = r + i - width // 2, c + j - width // 2
                    if 0 <= row < side and 0 <= column < side:
                        out[r, c] += kernel[:, 0, i, j] * grid[row, column]
    return out.reshape(y.shape)


def square_shapes(features, classes, size, heads):
    attention = [(size,), (size,), (heads, 33), (3 * size, size), (size, size), (size,)]
    position = [shape for width in (7, 5, 3) for shape in ((size, 1, width, width), (size,))]
    head = [(size,), (size,), (classes, size), (classes,)]
    return [(size,), (size, features), (size,), *attention, *position, *attention, *head]


def square(bag, params, heads, landmarks):
    """Compute logits, embedding, scores and attention (n, heads) of a bag (n, F)."""
    class_token, project, bias = params[:3]
    first, position, second, head = params[3:9], params[9:15], params[15:21], params[21:]
    h = np.maximum(bag @ project.T + bias, 0)
    side = math.ceil(math.sqrt(len(h)))
    y = np.concatenate([class_token[None], h, h[: side**2 - len(h)]])
    y = y + nystrom(y, first, heads, landmarks)[0]
    x = y[1:]
    x = x + sum(convolve_square(x, side, *position[i : i + 2]) for i in (0, 2, 4))
    y = np.concatenate([y[:1], x])
    out, scores = nystrom(y, second, heads, landmarks)
    embedding = layer_norm((y + out)[0], *head[:2])
    scores = scores[:, 1 : len(h) + 1]  # each instance once, at its first position
    attention = softmax(scores) if len(h) else scores
    return head[2] @ embedding + head[3], embedding, scores.T, attention.T
