// Nothing is deployed: the build is previewed.
export default {}
