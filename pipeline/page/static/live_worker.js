// Compresses the camera's pictures. In a worker a browser does it at once; on a page, when it has nothing else to do.
"use strict";

let canvas = null, context = null;

onmessage = async ({data}) => {
  try {
    const jpeg = await compressed(data);
    postMessage({jpeg}, [jpeg]);
  } catch { // this one is left out
    postMessage({jpeg: null});
  }
};

async function compressed({picture, width, height}) {
  if (!canvas || canvas.width !== width || canvas.height !== height) {
    canvas = new OffscreenCanvas(width, height);
    context = canvas.getContext("2d", {alpha: false, willReadFrequently: true});
  }
  context.drawImage(picture, 0, 0, width, height);
  picture.close();
  return (await canvas.convertToBlob({type: "image/jpeg", quality: 0.8})).arrayBuffer();
}
