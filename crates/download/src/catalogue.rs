//! The sets that are known, with their mirrors and checksums.

/// A public data set.
#[derive(Clone, Copy, Debug)]
pub struct PublicSet<'a> {
    /// What it is asked for by: `mnist`.
    pub name: &'a str,
    /// What people call it: `MNIST`.
    pub title: &'a str,
    /// What it shows and who made it.
    pub source: &'a str,
    /// Addresses that hold the files, without the slash at the end; the first is asked first.
    pub base_urls: &'a [&'a str],
    /// Its files.
    pub files: &'a [PublicFile<'a>],
}

/// A file of a public data set, as it was published.
#[derive(Clone, Copy, Debug)]
pub struct PublicFile<'a> {
    /// Its name in the mirror and on the disk.
    pub name: &'a str,
    /// Its length, in bytes.
    pub bytes: u64,
    /// 64 hex digits.
    pub sha256: &'a str,
    /// Of a gzipped file, what it holds: the same contents in another compression are as good.
    pub contents: Option<Contents<'a>>,
}

/// What a gzipped file holds.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// Length of the contents, in bytes.
    pub bytes: u64,
    /// 64 hex digits, of the contents.
    pub sha256: &'a str,
}

impl PublicSet<'_> {
    /// Length of all files together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Every set that is known.
pub fn all() -> &'static [PublicSet<'static>] {
    &[MNIST, FASHION_MNIST, CIFAR_10, CIFAR_100]
}

/// The set of this name, whatever its case and however its words are joined: `fashion_mnist`, `CIFAR-10`.
pub fn find(name: &str) -> Option<&'static PublicSet<'static>> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "");
    all().iter().find(|set| plain(set.name) == plain(name))
}

// The published checksums are MD5, which does not withstand forgery. These SHA-256 are those that TensorFlow Datasets and other
// loaders carry for the same files.

const MNIST: PublicSet<'static> = PublicSet {
    name: "mnist",
    title: "MNIST",
    source: "handwritten digits, 28×28 gray (LeCun, Cortes & Burges 1998)",
    base_urls: &["https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"],
    files: &[
        PublicFile {
            name: "train-images-idx3-ubyte.gz",
            bytes: 9_912_422,
            sha256: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            contents: Some(Contents {
                bytes: 47_040_016,
                sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            }),
        },
        PublicFile {
            name: "train-labels-idx1-ubyte.gz",
            bytes: 28_881,
            sha256: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            contents: Some(Contents {
                bytes: 60_008,
                sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            }),
        },
        PublicFile {
            name: "t10k-images-idx3-ubyte.gz",
            bytes: 1_648_877,
            sha256: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            contents: Some(Contents {
                bytes: 7_840_016,
                sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            }),
        },
        PublicFile {
            name: "t10k-labels-idx1-ubyte.gz",
            bytes: 4_542,
            sha256: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            contents: Some(Contents {
                bytes: 10_008,
                sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            }),
        },
    ],
};

const FASHION_MNIST: PublicSet<'static> = PublicSet {
    name: "fashion-mnist",
    title: "Fashion-MNIST",
    source: "clothes, 28×28 gray (Xiao, Rasul & Vollgraf 2017)",
    base_urls: &[
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    ],
    files: &[
        PublicFile {
            name: "train-images-idx3-ubyte.gz",
            bytes: 26_421_880,
            sha256: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            contents: None,
        },
        PublicFile {
            name: "train-labels-idx1-ubyte.gz",
            bytes: 29_515,
            sha256: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            contents: None,
        },
        PublicFile {
            name: "t10k-images-idx3-ubyte.gz",
            bytes: 4_422_102,
            sha256: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            contents: None,
        },
        PublicFile {
            name: "t10k-labels-idx1-ubyte.gz",
            bytes: 5_148,
            sha256: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            contents: None,
        },
    ],
};

const CIFAR_10: PublicSet<'static> = PublicSet {
    name: "cifar10",
    title: "CIFAR-10",
    source: "photographs of 10 classes, 32×32 RGB (Krizhevsky 2009)",
    base_urls: &["https://www.cs.toronto.edu/~kriz"],
    files: &[PublicFile {
        name: "cifar-10-binary.tar.gz",
        bytes: 170_052_171,
        sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        contents: None,
    }],
};

const CIFAR_100: PublicSet<'static> = PublicSet {
    name: "cifar100",
    title: "CIFAR-100",
    source: "photographs of 100 classes, 32×32 RGB (Krizhevsky 2009)",
    base_urls: &["https://www.cs.toronto.edu/~kriz"],
    files: &[PublicFile {
        name: "cifar-100-binary.tar.gz",
        bytes: 168_513_733,
        sha256: "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        contents: None,
    }],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_found_however_their_name_is_written() {
        for (name, found) in [("mnist", "mnist"), ("Fashion_MNIST", "fashion-mnist"), ("CIFAR-100", "cifar100")] {
            assert_eq!(find(name).expect(name).name, found);
        }
        assert!(find("imagenet").is_none() && find("").is_none());
    }

    #[test]
    fn every_file_has_a_whole_checksum_of_its_own() {
        let mut sums = std::collections::HashSet::new();
        for set in all() {
            assert!(set.base_urls.iter().all(|url| url.starts_with("http") && !url.ends_with('/')), "{}", set.name);
            for file in set.files {
                let contents = file.contents.map(|contents| contents.sha256);
                for sum in [Some(file.sha256), contents].into_iter().flatten() {
                    assert!(sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
                    assert!(sums.insert(sum), "{} has the checksum of another file", file.name);
                }
            }
        }
        assert_eq!(sums.len(), 14);
    }
}
