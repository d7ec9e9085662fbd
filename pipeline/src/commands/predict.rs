//! `pipeline predict`: what image files show.

use ::train::Predictor;
use report::Cell;

use crate::{
    cli::{self, Global},
    exit::Exit,
    output::{self, integer, rows, text},
    trained::Trained,
};

/// Classifies and prints the most probable classes of each image. Images that cannot be read are told on stderr and left out.
pub fn run(predict: &cli::Predict, global: &Global) -> anyhow::Result<Exit> {
    let trained = Trained::find(&predict.network, global)?;
    let (card, variables) = ::train::load_weights(trained.weights())?;
    let image = card.image.unwrap_or([card.input[1], card.input[2]]);
    let preprocessing = dataset::Preprocessing::new(image, card.input, &card.mean, &card.std)?;
    let device = cli::Device::or(predict.device, ::plan::Device::Cpu)?;
    let mut predictor = Predictor::new(card, variables, &device, predict.threads)?;
    let mut table = Vec::new();
    let mut broken = false;
    // A batch at a time, so that memory does not grow with the number of files.
    for paths in predict.images.chunks(::train::PREDICTION_BATCH) {
        let mut images = Vec::new();
        let mut read = Vec::new();
        for path in paths {
            let mut sample = vec![0.0; preprocessing.sample_values()];
            match preprocessing.sample(path, &mut sample) {
                Ok(()) => {
                    images.extend(sample);
                    read.push(path);
                }
                Err(error) => {
                    output::tell(&format!("error: {error}"));
                    broken = true;
                }
            }
        }
        for (path, guesses) in read.iter().zip(predictor.guesses(&images, predict.top.into())?) {
            for (rank, guess) in guesses.iter().enumerate() {
                table.push(vec![
                    text(path.display().to_string()),
                    integer(rank + 1),
                    text(predictor.card().classes[guess.class].clone()),
                    Cell::Real(guess.probability),
                ]);
            }
        }
    }
    rows(&["image", "rank", "class", "probability"], &table, &predict.rows)?;
    Ok(if broken { Exit::BadInput } else { Exit::Fine })
}
