"""Training steps in Keras on TensorFlow, on the processor: `python keras_step.py lenet5 64 2` prints images per second with two threads.

    pip install keras tensorflow-cpu

oneDNN is on, and the step is compiled into a graph by TensorFlow; XLA would be slower there.
"""

import os
import statistics
import sys
import time

os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="1", CUDA_VISIBLE_DEVICES="")
import keras  # noqa: E402
import tensorflow  # noqa: E402
from keras import layers  # noqa: E402


def lenet5():
    return [
        layers.Input((28, 28, 1)),
        layers.Conv2D(6, 5, padding="same", activation="tanh"),
        layers.AveragePooling2D(2),
        layers.Conv2D(16, 5, activation="tanh"),
        layers.AveragePooling2D(2),
        layers.Conv2D(120, 5, activation="tanh"),
        layers.Flatten(),
        layers.Dense(84, activation="tanh"),
        layers.Dense(10),
    ]


def alexnet():
    net = [layers.Input((227, 227, 3))]
    for layer, (filters, kernel) in enumerate([(96, 11), (256, 5), (384, 3), (384, 3), (256, 3)]):
        stride, padding = (4, "valid") if layer == 0 else (1, "same")
        net += [layers.Conv2D(filters, kernel, strides=stride, padding=padding), layers.BatchNormalization(), layers.ReLU()]
        net += [layers.MaxPooling2D(3, 2)] if layer in (0, 1, 4) else []
    net.append(layers.Flatten())
    for _ in range(2):
        net += [layers.Dense(4096, activation="relu"), layers.Dropout(0.5)]
    return [*net, layers.Dense(1000)]


def main():
    name, batch, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
    keras.utils.set_random_seed(0)
    network = keras.Sequential({"lenet5": lenet5, "alexnet": alexnet}[name]())
    network.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=5e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    images = tensorflow.random.normal((batch, *network.input_shape[1:]))
    classes = tensorflow.range(batch) % network.output_shape[-1]
    for _ in range(3):
        network.train_on_batch(images, classes)
    times, start = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < 5:
        before = time.perf_counter()
        network.train_on_batch(images, classes)
        times.append(time.perf_counter() - before)
    print([batch / statistics.median(times), batch / min(times)])


main()
