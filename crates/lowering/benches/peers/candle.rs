//! Training steps in candle, on the processor: `RAYON_NUM_THREADS=2 candle lenet5 64` prints images per second.
//!
//! What candle lacks is written out: momentum and weight decay, and the gradient of a maximum over windows that overlap.

mod timing;

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Module, ModuleT, Result, Shape, Tensor, Var};
use candle_nn::{
    BatchNorm, Conv2d, Conv2dConfig, Dropout, Linear, VarBuilder, VarMap, batch_norm, conv2d, linear,
    loss::cross_entropy,
};

/// Maxima over 3×3 windows, two pixels apart.
struct OverlappingMaxima;

/// Side of the result.
fn pooled(side: usize) -> usize {
    (side - 3) / 2 + 1
}

/// Calls `each` with the place of each window in the result and the place of its first maximum in the plane.
fn maxima(plane: &[f32], [height, width]: [usize; 2], mut each: impl FnMut(usize, usize)) {
    for row in 0..pooled(height) {
        for column in 0..pooled(width) {
            let corner = 2 * row * width + 2 * column;
            let window = (0..9).map(|at| corner + at / 3 * width + at % 3);
            let best = window.reduce(|best, at| if plane[at] > plane[best] { at } else { best });
            each(row * pooled(width) + column, best.unwrap_or(corner));
        }
    }
}

impl CustomOp1 for OverlappingMaxima {
    fn name(&self) -> &'static str {
        "overlapping-maxima"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (images, channels, height, width) = layout.shape().dims4()?;
        let (start, end) = layout.contiguous_offsets().expect("the caller makes it contiguous");
        let size = pooled(height) * pooled(width);
        let mut result = vec![0.0; images * channels * size];
        let planes = storage.as_slice::<f32>()?[start..end].chunks_exact(height * width);
        for (plane, result) in planes.zip(result.chunks_exact_mut(size)) {
            maxima(plane, [height, width], |place, best| result[place] = plane[best]);
        }
        Ok((CpuStorage::F32(result), (images, channels, pooled(height), pooled(width)).into()))
    }

    fn bwd(&self, argument: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, height, width) = argument.dims4()?;
        let maps = argument.flatten_all()?.to_vec1::<f32>()?;
        let from = gradient.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
        let mut to = vec![0.0; maps.len()];
        let planes = maps.chunks_exact(height * width).zip(to.chunks_exact_mut(height * width));
        for ((plane, to), from) in planes.zip(from.chunks_exact(pooled(height) * pooled(width))) {
            maxima(plane, [height, width], |place, best| to[best] += from[place]);
        }
        Ok(Some(Tensor::from_vec(to, argument.shape(), argument.device())?))
    }
}

/// A convolution [input, output] with a square kernel.
fn convolution(
    name: &str,
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: usize,
    of: &VarBuilder,
) -> Result<Conv2d> {
    let config = Conv2dConfig { stride, padding, ..Conv2dConfig::default() };
    conv2d(channels[0], channels[1], kernel, config, of.pp(name))
}

/// Logits of images [N, C, H, W].
type Forward = Box<dyn Fn(&Tensor) -> Result<Tensor>>;

fn lenet5(of: &VarBuilder) -> Result<Forward> {
    let convolutions = [
        convolution("conv1", [1, 6], 5, 1, 2, of)?,
        convolution("conv2", [6, 16], 5, 1, 0, of)?,
        convolution("conv3", [16, 120], 5, 1, 0, of)?,
    ];
    let linears = [linear(120, 84, of.pp("fc4"))?, linear(84, 10, of.pp("fc5"))?];
    Ok(Box::new(move |images| {
        let first = convolutions[0].forward(images)?.tanh()?.avg_pool2d(2)?;
        let second = convolutions[1].forward(&first)?.tanh()?.avg_pool2d(2)?;
        let third = convolutions[2].forward(&second)?.tanh()?.flatten_from(1)?;
        linears[1].forward(&linears[0].forward(&third)?.tanh()?)
    }))
}

fn alexnet(of: &VarBuilder) -> Result<Forward> {
    let convolutions = [
        convolution("conv1", [3, 96], 11, 4, 0, of)?,
        convolution("conv2", [96, 256], 5, 1, 2, of)?,
        convolution("conv3", [256, 384], 3, 1, 1, of)?,
        convolution("conv4", [384, 384], 3, 1, 1, of)?,
        convolution("conv5", [384, 256], 3, 1, 1, of)?,
    ];
    let norm = |(layer, channels): (usize, usize)| batch_norm(channels, 1e-5, of.pp(format!("norm{layer}")));
    let norms = [96, 256, 384, 384, 256].into_iter().enumerate().map(norm).collect::<Result<Vec<BatchNorm>>>()?;
    let sizes = [("fc6", 9216, 4096), ("fc7", 4096, 4096), ("fc8", 4096, 1000)];
    let linears =
        sizes.map(|(name, from, to)| linear(from, to, of.pp(name))).into_iter().collect::<Result<Vec<Linear>>>()?;
    let dropout = Dropout::new(0.5);
    Ok(Box::new(move |images| {
        let mut maps = images.clone();
        for (layer, (convolution, norm)) in convolutions.iter().zip(&norms).enumerate() {
            maps = norm.forward_t(&convolution.forward(&maps)?, true)?.relu()?;
            if [0, 1, 4].contains(&layer) {
                maps = maps.contiguous()?.apply_op1(OverlappingMaxima)?;
            }
        }
        let mut hidden = maps.flatten_from(1)?;
        for linear in &linears[..2] {
            hidden = dropout.forward(&linear.forward(&hidden)?.relu()?, true)?;
        }
        linears[2].forward(&hidden)
    }))
}

/// One step of SGD; the loss before it.
fn step(forward: &Forward, images: &Tensor, classes: &Tensor, trained: &mut [(Var, Tensor)]) -> Result<f32> {
    let loss = cross_entropy(&forward(images)?, classes)?;
    let gradients = loss.backward()?;
    for (parameter, moment) in trained {
        // Running means and variances have no gradient.
        let Some(gradient) = gradients.get(parameter) else { continue };
        let decayed = (gradient + (parameter.as_tensor() * 5e-4)?)?;
        *moment = ((&*moment * 0.9)? + decayed)?.detach();
        parameter.set(&(parameter.as_tensor() - (&*moment * 0.01)?)?)?;
    }
    loss.to_scalar()
}

fn main() -> Result<()> {
    let (name, batch) = timing::arguments();
    let variables = VarMap::new();
    let of = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let (forward, channels, side, count) =
        if name == "lenet5" { (lenet5(&of)?, 1, 28, 10) } else { (alexnet(&of)?, 3, 227, 1000) };
    let images = Tensor::randn(0.0_f32, 1.0, (batch, channels, side, side), &Device::Cpu)?;
    let classes = Tensor::from_iter((0..batch as u32).map(|image| image % count), &Device::Cpu)?;
    let with_moment = |variable: Var| Ok((variable.clone(), variable.zeros_like()?));
    let mut trained: Vec<(Var, Tensor)> = variables.all_vars().into_iter().map(with_moment).collect::<Result<_>>()?;
    timing::measure(batch, || step(&forward, &images, &classes, &mut trained).expect("a step of candle"));
    Ok(())
}
