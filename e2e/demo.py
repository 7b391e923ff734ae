"""The main job on a real model: pack it, serve it, pull it, publish it over CSI, and load it from the mount.

Run by ``make demo``. Everything happens in a temporary folder and on loopback, and is gone at the end, also after a failure.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from e2e import packing
from e2e.driver import Driver
from e2e.registry import Registry, running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator


def main() -> int:
    """Run every step; the exit code says whether all went well."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        # Below the state directory's usual parent, for /tmp may be a tmpfs, which cannot hold EROFS images.
        folder = Path(tempfile.mkdtemp(prefix="csi-model-demo-", dir="/var/lib"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        driver = Driver(folder)
        stack.callback(driver.clean_up)
        references = serve_model(folder, driver, stack)
        for _, reference, _ in references:
            step(f"What is it? csi-model inspect {reference}")
            command("inspect", reference, "--plain-http")
            step(f"csi-model pull {reference}")
            command("pull", reference, "--plain-http", "--state-dir", str(driver.state))
        step("Start the driver, as it runs on a node")
        with timed("registered"):
            driver.start()
        for name, reference, path in references:
            publish_and_load(driver, name, reference, path)
        step("What is on this node now")
        command("images", "--state-dir", str(driver.state))
        step("Unpublish, and stop the driver")
        for name, *_ in references:
            driver.unpublish(name)
        driver.stop()
        left = driver.mounts()
        print(f"mounts left: {left or 'none'}")
        if left:
            return 1
    print("\nDone: every byte was verified, nothing was unpacked, nothing is left.")
    return 0


def serve_model(folder: Path, driver: Driver, stack: ExitStack) -> list[tuple[str, str, str]]:
    """Pack the real model and serve it; returns a name, the reference and the path to show for each way of packing."""
    model = packing.real_model()
    files = packing.model_files(model)
    size = sum(path.stat().st_size for path in files.values()) / 1e6
    step(f"Pack a real model: {len(files)} files, {size:.0f} MB of sentence-transformer weights and tokenizer")
    if shutil.which("docker-registry") is None:
        print("no docker-registry on this machine: serving an OCI layout instead")
        layout = packing.write_layout(folder / "layout", model)
        driver.config["layouts"] = {"allowedPrefixes": [f"oci-layout://{folder}/"]}
        return [("pod-1", f"oci-layout://{layout}:v1", "")]
    registry: Registry = stack.enter_context(running_registry(folder / "registry"))
    driver.config["registries"] = {registry.host: {"plainHttp": True}}
    references = [("pod-1", packing.push_modelpack(registry, "llm/minilm", model), "")]
    print(f"as a ModelPack artifact, by modelpack-client:  {references[0][1]}")
    if shutil.which("umoci") and shutil.which("skopeo"):
        image = packing.push_image(registry, "llm/minilm-car", packing.image_layout(model, folder))
        references.append(("pod-2", image, "/models"))
        print(f"as a Modelcar-style image, by umoci and skopeo: {image}")
    return references


def publish_and_load(driver: Driver, name: str, reference: str, path: str) -> None:
    """Publish as kubelet would, look at the files, load them, and try to write."""
    step(f"Publish {reference} for {name}, by the call that kubelet makes (NodePublishVolume)")
    with timed("published"):
        target = driver.publish(reference, name, path=path)
    for file in sorted(target.rglob("*")):
        if file.is_file():
            print(f"  {file.stat().st_size:>11,}  {file.relative_to(target)}")
    print(f"NodeGetVolumeStats: {driver.stats(name)}")
    load(target)
    if packing.checksums(target) != packing.checksums(packing.real_model()):
        msg = "the mounted files differ from those that were packed"
        raise RuntimeError(msg)
    print("every file's SHA-256 is that of the file that was packed")
    try:
        (target / "new").touch()
    except OSError as error:
        print(f"writing is refused: {error.strerror}")
    else:
        msg = "the mount can be written to"
        raise RuntimeError(msg)


def load(target: Path) -> None:
    """Load the weights and the tokenizer straight from the mount, with the libraries that their files are for."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    with timed("loaded"):
        tensors = load_file(target / "model.safetensors")
        tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    count = sum(tensor.size for tensor in tensors.values())
    encoded = tokenizer.encode("Models are mounted, not unpacked.")
    print(f"safetensors: {len(tensors)} tensors, {count / 1e6:.1f} million parameters; tokenizers: {encoded.tokens[:8]}")


def command(*arguments: str) -> None:
    """Run the command line as a person would."""
    subprocess.run([sys.executable, "-m", "csi_model", *arguments], check=True)


def step(text: str) -> None:
    """A heading."""
    print(f"\n== {text}", flush=True)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Say how long it took."""
    began = time.monotonic()
    yield
    print(f"{what} in {time.monotonic() - began:.2f} s")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\nStopped; everything that the demo had started is gone.")
        sys.exit(130)
